"""Offline distillation: a frozen teacher's output, a student, and a weighted sum of losses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck.distillers.exclusive import for_exclusive_classes
from limbeck.distillers.scheme import Scheme, TaskLoss, check_targets, weighted_sum
from limbeck.distillers.task import task_value
from limbeck.distillers.term import BoundTerm, Term
from limbeck.distillers.vocabulary import check_indices, class_count, common_vocabulary, described
from limbeck.errors import RequestError, shown, unknown
from limbeck.losses import Sampled, TopK
from limbeck.losses.processes import is_first
from limbeck.notices import tell
from limbeck.options import is_list, is_number, is_whole
from limbeck.taps import LOGITS, Taps, evaluating, heads_of
from limbeck.taps.wrappers import compiled_by_user
from limbeck.tasks import Task
from limbeck.types import Batch, Step, TeacherOutput

TASK = "task"


class Distiller(Scheme):
    """loss = task_weight · task loss(labels) + Σ weight · term(student tensor, teacher tensor).

    What the labels are, the loss on them, and the figures by which the student is judged are the task's. Without terms
    the student is trained on labels alone. Terms with adapters are sized by `prepare`, which `fit` calls; in a
    loop of your own call it once, before the optimizer is made.

    Of a student with two heads (`two_heads`), such as DeiT's, the first learns the labels, and terms read the second as
    its "logits"; both learn by their mean where there are no labels, or no such term.

    Args:
        student: The model to ship; it stays as it is, no hooks remain in it.
        terms: The distillation losses.
        task_weight: Weight of the task loss; 0 leaves it out, and then labels are only counted: any will do.
        task: What is learned; `Classification()` by default, whose loss is cross-entropy.
        task_loss: `task_loss(output, targets) -> Tensor` in place of that, where no task is given.
        inputs: What prepares the student's inputs; None leaves them as they are.
        common_classes: So many classes, the first ones, are the same for teacher and student, and terms on logits
            compare these alone. None takes all, for which both must have as many; only language models, with logits
            (B, L, C), may differ by up to 5 %, which `prepare` takes for padding behind one vocabulary, and says so.

    Raises:
        RequestError: A student tap that the student does not have.

    Transfers: what its terms compare.
    Use: wherever there is a trained teacher.
    Source: Hinton, Vinyals, Dean, 2015, arXiv:1503.02531, for logits; Romero et al., ICLR 2015, arXiv:1412.6550, for
        hidden tensors; recommended task weight 0.1 beside terms on logits, 1 beside terms on hidden tensors.

    >>> from limbeck import losses
    >>> student = nn.Linear(4, 3)
    >>> distiller = Distiller(student, [Term(losses.kd, weight=0.9)], task_weight=0.1)
    >>> batch = Batch(torch.randn(2, 4), torch.tensor([0, 2]), torch.arange(2))
    >>> sorted(distiller(batch, TeacherOutput(torch.randn(2, 3))).parts)
    ['kd', 'task']
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[Term] = (),
        *,
        task_weight: float = 1.0,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
        inputs: nn.Module | None = None,
        common_classes: int | None = None,
    ) -> None:
        super().__init__(student, inputs, task, task_loss)
        if not (is_list(terms) and all(isinstance(term, Term) for term in terms)):
            raise RequestError(f"terms is a list, as in Distiller(student, [Term(...)]), not {shown(terms)}")
        if not (is_number(task_weight) and 0 <= task_weight < math.inf):
            raise RequestError(f"task_weight must be 0 or more, not {shown(task_weight)}")
        if common_classes is not None and not is_whole(common_classes, 1):
            raise RequestError(f"common_classes is a whole number from 1 on, not {shown(common_classes)}")
        if not terms and not task_weight:
            raise RequestError("nothing to learn: task_weight is 0 and there is no term")
        self.task_weight = task_weight
        self.common_classes = common_classes
        self._bound = _named(terms, self.task)
        self._compare(common_classes)
        self.terms = nn.ModuleDict(self._bound)
        self._student_taps = Taps(student, [name for term in terms for name in _flat(term.student)], "student")
        self._teacher_taps = tuple(dict.fromkeys(name for term in terms for name in _flat(term.teacher)))

    @property
    def teacher_taps(self) -> Sequence[str]:
        return tuple(name for name in self._teacher_taps if name != LOGITS)

    @property
    def why_uncompiled(self) -> str:
        hidden = self._student_taps.untraced
        if hidden:
            return f"a term reads {hidden.name!r}, which compiled code does not show"
        apart = self._student_taps.taps and not self.is_compiled and compiled_by_user(self.student.modules())
        return "a term reads hidden tensors of a student of which a part is compiled already" if apart else ""

    @property
    def teacher_temperatures(self) -> Sequence[float]:
        return tuple(dict.fromkeys(one for term in self._bound.values() for one in term.term.teacher_temperatures))

    @property
    def leaves_out(self) -> bool:
        return not self.task_weight and not self._reads_logits

    @property
    def trains_student(self) -> bool:
        return bool(self.task_weight) or any(_flat(one.term.student) for one in self._bound.values())

    @property
    def _reads_logits(self) -> bool:
        """Whether a term reads the student's logits."""
        return any(LOGITS in _flat(one.term.student) for one in self._bound.values())

    @property
    def teacher_logits(self) -> bool:
        return LOGITS in self._teacher_taps

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        """One training step's loss.

        Args:
            batch: The samples.
            teacher_output: What the teacher says about them; None only without terms.

        Raises:
            RequestError: A term's adapter was not sized by `prepare`, or the teacher output lacks what a term reads.
        """
        logits, parts, weights = self.losses(batch, teacher_output)
        loss = weighted_sum(parts.values(), weights)
        return Step(loss, logits, {name: part.detach() for name, part in parts.items()})

    def losses(
        self, batch: Batch, teacher_output: TeacherOutput | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor], Sequence[float]]:
        """What `forward` adds up: the student's logits, each loss by name with its gradient, and their weights.

        Args:
            batch: The samples.
            teacher_output: What the teacher says about them; None only without terms.

        Raises:
            RequestError: As `forward`.
        """
        output, student = self._student_taps.run(self.prepared(batch.inputs), self.answer)
        labelled = logits = student[LOGITS]
        if self.two_heads:
            labelled, student[LOGITS], logits = self._by_head(output)
        teacher = self._tensors(teacher_output)
        parts: dict[str, Tensor] = {}
        weights: list[float] = []
        if of_labels := self._weight_of_labels(batch):
            parts[TASK] = task_value(self.task, labelled, batch.targets)
            weights.append(of_labels)
        for name, term in self._bound.items():
            if not term.ready:
                raise RequestError(
                    f"term {name} is not sized yet; call prepare(batch, teacher_output) before making the optimizer"
                )
            weights.append(term.weight(self.epoch))
            parts[name] = term(student, teacher, batch, weights[-1], self.epoch)
        return logits, parts, weights

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Size the adapters by one example, and check every term on it; the student's state is left as it is.

        Raises:
            RequestError: Student and teacher know different numbers of classes, a tap is missing from what the teacher
                gave, or shapes cannot be brought together.
        """
        with evaluating(self):
            _, student = self._student_taps.run(self.prepared(batch.inputs), self.answer)
            teacher = self._tensors(teacher_output)
            self._check_classes(student[LOGITS], batch.targets, teacher.get(LOGITS))
            for name, term in self._bound.items():
                term.place(batch.device)
                if not term.ready:
                    term.build(student, teacher)
                try:
                    with evaluating(term):  # also what was made just now: a memory keeps nothing of this look
                        for epoch in term.ends:
                            value = term(student, teacher, batch, epoch=epoch)
                except Exception as error:  # the loss may be anybody's
                    reason = str(error) if isinstance(error, RequestError | RuntimeError) else repr(error)
                    raise RequestError(f"term {name} ({term.term.student} → {term.term.teacher}): {reason}") from error
                if value.dim():
                    raise RequestError(f"term {name}: its loss gives {tuple(value.shape)} instead of one value")

    def _weight_of_labels(self, batch: Batch) -> float:
        """The weight of the task loss on this batch; 0 leaves it out."""
        return self.task_weight

    def _by_head(self, output: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Of a student with two heads: what learns the labels, what terms read as its logits, and its answer."""
        answer, heads = self.answer(output), heads_of(output)
        if heads is None or not self.task_weight or not self._reads_logits:
            return answer, answer, answer
        return *heads, answer

    def _tensors(self, teacher_output: TeacherOutput | None) -> Mapping[str, Tensor]:
        if not self._teacher_taps:
            return {}
        if teacher_output is None:
            raise RequestError(f"the terms {', '.join(self.terms)} need a teacher, and none was given")
        tensors = dict(teacher_output.features)
        if teacher_output.output is not None:
            tensors[LOGITS] = self._output(teacher_output.output)
        for name in self._teacher_taps:
            if name == LOGITS and name not in tensors and tensors:
                raise RequestError(
                    f"the teacher gives no logits but {', '.join(tensors)}; say which of them is its output: "
                    f"FunctionTeacher(teacher, output={next(iter(tensors))!r})"
                )
            if name not in tensors:
                raise unknown("teacher tap", name, tensors)
        return tensors

    def _output(self, output: Tensor | TopK | Sampled) -> Tensor:
        """The task's output in a teacher's; a sparse one stays as it is, for losses that take it."""
        return cast(Tensor, output) if isinstance(output, TopK | Sampled) else self.task.output(output)

    def _check_classes(self, logits: Tensor, targets: Tensor, teacher: Tensor | None) -> None:
        compared = any(term.compares_logits for term in self._bound.values())
        for line in for_exclusive_classes(self._bound.values(), self.task) if is_first() else ():
            tell(line)
        if isinstance(teacher, TopK | Sampled):
            if self.common_classes is not None:
                raise RequestError(
                    "common_classes compares the first of all logits, and this teacher gives some classes alone; leave "
                    "common_classes out, or store all logits"
                )
            check_indices(logits, teacher)
        elif teacher is not None and self.task.classifies and compared:
            self._check_common(logits, targets, teacher)
        if self.task_weight:
            check_targets(self.task, logits, targets)

    def _check_common(self, logits: Tensor, targets: Tensor, teacher: Tensor) -> None:
        least = min(class_count(logits), class_count(teacher))
        if self.common_classes is not None and not 1 <= self.common_classes <= least:
            raise RequestError(f"common_classes must lie between 1 and {least}, not {self.common_classes}")
        common = self.common_classes
        if common is None and class_count(teacher) != class_count(logits):
            common = common_vocabulary(logits, teacher, targets)
            if is_first():
                tell(described(logits, teacher, common))
        self._compare(common)

    def _compare(self, classes: int | None) -> None:
        for term in self._bound.values():
            term.classes = classes


def _named(terms: Sequence[Term], task: Task) -> dict[str, BoundTerm]:
    """The terms by name; where two share one, the student tap tells them apart, and then a number."""
    counts = Counter(term.name for term in terms)
    named: dict[str, BoundTerm] = {}
    for term in terms:
        name = term.name if counts[term.name] == 1 else f"{term.name}:{'+'.join(_flat(term.student))}"
        name = name.replace(".", "/")  # a module's name has no dots
        while name in named or name == TASK:
            name += "'"
        named[name] = BoundTerm(term, task.loss_options)
    return named


def _flat(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
