"""Offline distillation of language models whose logits are never all there: they are made a few tokens at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from limbeck.distillers.offline import TASK, Distiller
from limbeck.distillers.scheme import weighted_sum
from limbeck.distillers.term import BoundTerm, Names, Term
from limbeck.errors import RequestError
from limbeck.losses import TopK
from limbeck.losses.response.sparse import takes
from limbeck.losses.tokens import Projected
from limbeck.losses.tokens.through import Part, through_head
from limbeck.losses.tokens.token_loss import Tokens, TokenTeacher
from limbeck.models.output_head import OutputHead, find_head
from limbeck.taps import LOGITS, Taps, evaluating
from limbeck.tasks import Task
from limbeck.types import Batch, Step, TeacherOutput, map_teacher_output

FEW = 2
"""Samples on which the head is compared with the student's own logits."""
AGREES = 1e-3
"""How far they may differ, as a share of the largest: autocast computes the head in another order."""
_OF_ALL_TOKENS = ("average", "ignore_index", "chunk")
"""Options of losses on logits (B, L, V) that have no meaning for tokens in a row."""


class TokenDistiller(Distiller):
    """A `Distiller` for causal language models, with losses on logits through the student's head, in chunks.

    Loss and gradients are those of a `Distiller` with a task of positions; a matrix of logits (B·L, V) is never there.
    The student runs as deep as the hidden states that its head reads; task loss and terms on logits share what is made
    of them, and each is a mean over the tokens that count. Terms on hidden tensors are as in `Distiller`.

    Args:
        student: A causal language model; logits are those of a head on its hidden states.
        terms: The losses. Those on "logits" give one value a sample (`limbeck.losses.kd`, `reverse_kl`, `jsd`,
            `skewed_kl`, `total_variation`, …), and a sample is a token.
        task: A task with a class for each position of (B, L, V): `TokenClassification` or `LanguageModelling`.
        head: The path of the student's last linear layer, such as "lm_head", or an `OutputHead`; None finds it
            (`limbeck.models.output_head.find_head`).
        scale, cap: What the logits are multiplied by, and their soft cap; None takes them from the student's
            configuration, as models of transformers have it.
        chunk: Tokens at a time; None chooses by the vocabulary.
        teacher: The teacher's model, whose hidden states and head then take the place of its logits; None for a teacher
            that gives logits, such as a stored one.
        teacher_head: The path of its head; None finds it.
        task_weight, inputs, common_classes: As for `Distiller`.

    Raises:
        RequestError: A task without positions, a head that cannot be found, or a term that does not go in chunks.

    Transfers: what its terms compare.
    Use: language models with large vocabularies, whose logits would not fit in memory.
    Source: the losses' own; a recommended task weight is that of `Distiller`.
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[Term] = (),
        *,
        task: Task,
        task_weight: float = 1.0,
        inputs: nn.Module | None = None,
        common_classes: int | None = None,
        head: str | OutputHead | None = None,
        scale: float | None = None,
        cap: float | None = None,
        chunk: int | None = None,
        teacher: nn.Module | None = None,
        teacher_head: str | OutputHead | None = None,
    ) -> None:
        super().__init__(
            student, terms, task=task, task_weight=task_weight, inputs=inputs, common_classes=common_classes
        )
        self.head = find_head(self.student, head, scale, cap)
        self.chunk = chunk
        self._guide = None if teacher is None else _Guide(find_head(teacher, teacher_head), teacher)
        self._ignored = _checked_task(task)
        self._of_logits = {name: one for name, one in self._bound.items() if _reads_logits(one)}
        for name, one in self._bound.items():
            _check_term(name, one, self._ignored)
        if not self._of_logits and not self.task_weight:
            raise RequestError("nothing is learned from logits, so there is nothing to do in chunks; leave chunked out")
        names = [name for name in _taps(self._bound.values()) if name != LOGITS]
        self._student_taps = Taps(student, [*names, self.head.hidden], "student")
        if self._guide is not None and self._of_logits:
            taken = dict.fromkeys([*self._teacher_taps, self._guide.head.hidden])
            self._teacher_taps = tuple(name for name in taken if name != LOGITS)

    @property
    def why_uncompiled(self) -> str:
        return "with logits in chunks a pass ends at the hidden states, and compiled code would run on"

    @property
    def takes_sparse(self) -> bool:
        return all(takes(one.loss, TopK) for one in self._of_logits.values())

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        tokens, student = self._tokens(batch)
        teacher = self._tensors(teacher_output)
        parts, weights = self._parts(tokens, teacher, batch)
        others = self._others(student, teacher, batch)
        score = _Score(self.task, tokens)
        head, count = self.head.of(self.student), tokens.count()
        shares = [weight / count for weight in weights]
        total, sums = through_head(list(parts.values()), shares, tokens.hidden, head, self.chunk, score.look)
        loss = weighted_sum([total, *(part for part, _ in others.values())], [1.0, *(w for _, w in others.values())])
        found = dict(zip(parts, sums / count, strict=True)) | {
            name: part.detach() for name, (part, _) in others.items()
        }
        with torch.no_grad():
            first = head(tokens.hidden[:1, None].detach().to(head.weight.dtype))
        return Step(loss, first, found, score.sums)

    def losses(
        self, batch: Batch, teacher_output: TeacherOutput | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor], Sequence[float]]:
        tokens, student = self._tokens(batch)
        teacher = self._tensors(teacher_output)
        parts, weights = self._parts(tokens, teacher, batch)
        head, share = self.head.of(self.student), [1 / tokens.count()]
        each = {name: through_head([p], share, tokens.hidden, head, self.chunk)[0] for name, p in parts.items()}
        others = self._others(student, teacher, batch)
        each |= {name: part for name, (part, _) in others.items()}
        return tokens.hidden[:0], each, [*weights, *(weight for _, weight in others.values())]

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        few, of_few = batch.first(FEW), map_teacher_output(teacher_output, lambda x: x[:FEW])
        with evaluating(self):
            logits = self.predict(few.inputs)
            _, student = self._tokens(few._replace(targets=None))
            made = self.head.of(self.student)(student[self.head.hidden])
        self._check_head(made, logits)
        if self._guide is not None and of_few is not None and self._of_logits:
            of_few = of_few._replace(output=self._guide.logits(of_few.features))
        super().prepare(few, of_few)

    def _check_head(self, made: Tensor, logits: Tensor) -> None:
        """Raise RequestError where the head on the hidden states does not give the student's own logits."""
        if made.shape == logits.shape:
            apart = float((made - logits.to(made)).abs().max() / made.abs().max().clamp(min=1e-6))
            if apart <= AGREES:
                return
            reason = f"differ from its logits by {apart:.1%} of the largest"
        else:
            reason = f"give {tuple(made.shape)}, and its logits are {tuple(logits.shape)}"
        raise RequestError(
            f"{self.head.hidden} and {self.head.weight} of {type(self.student).__name__} {reason}: logits in chunks "
            "need its head; give head, scale and cap, or leave chunked out"
        )

    def _tokens(self, batch: Batch) -> tuple[Tokens, Mapping[str, Tensor]]:
        """The tokens that count, and what was read of the student, which runs no deeper."""
        student = self._student_taps.run_to_last(self.prepared(batch.inputs))
        return Tokens(student[self.head.hidden], batch.targets, self._ignored), student

    def _parts(
        self, tokens: Tokens, teacher: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Mapping[str, Part], Sequence[float]]:
        """The losses through the head by name, and their weights."""
        parts: dict[str, Part] = {}
        weights: list[float] = []
        if of_labels := self._weight_of_labels(batch):
            if tokens.targets is None:
                raise RequestError("the loader gives no labels; give them, or leave the task loss out: task_weight 0")
            parts[TASK] = tokens.cross_entropy(len(self.head.of(self.student).weight))
            weights.append(of_labels)
        for name, one in self._of_logits.items():
            options = one.options(self.epoch, batch.targets is not None)
            given = {key: value for key, value in options.items() if key not in _OF_ALL_TOKENS}
            part = tokens.part(one.loss, self._teacher_logits(teacher, one.classes), given)
            parts[name] = part if one.classes is None else functools.partial(_of_first, part, one.classes)
            weights.append(one.weight(self.epoch))
        return parts, weights

    def _teacher_logits(self, teacher: Mapping[str, Tensor], classes: int | None) -> TokenTeacher:
        """The teacher's logits, or what they are made of; of so many classes, the first ones."""
        given: TokenTeacher = teacher[LOGITS] if self._guide is None else self._guide.projected(teacher)
        if isinstance(given, Tensor):
            return given[..., :classes]
        return given._replace(head=given.head.first(classes)) if isinstance(given, Projected) else given

    def _others(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], batch: Batch
    ) -> Mapping[str, tuple[Tensor, float]]:
        """The terms on hidden tensors by name, each with its weight."""
        found = {}
        for name, one in self._bound.items():
            if name not in self._of_logits:
                weight = one.weight(self.epoch)
                found[name] = (one(student, teacher, batch, weight, self.epoch), weight)
        return found


class _Guide(NamedTuple):
    """A teacher's model, whose head makes logits of the hidden states that it gives."""

    head: OutputHead
    model: nn.Module

    def __deepcopy__(self, memo: object) -> _Guide:
        return self  # a copy of a scheme has the same teacher

    def projected(self, features: Mapping[str, Tensor]) -> Projected:
        return Projected(features[self.head.hidden], self.head.of(self.model))

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        if self.head.hidden not in features:
            raise RequestError(f"the teacher gives no {self.head.hidden}, which its head reads")
        hidden, head = self.projected(features)
        return head(hidden.to(head.weight))


class _Score:
    """The task's score over a batch, counted while the logits are there."""

    def __init__(self, task: Task, tokens: Tokens) -> None:
        self._task, self._targets = task, tokens.targets
        self.sums = tokens.hidden.new_zeros(2, dtype=torch.float32).detach()

    def look(self, logits: Tensor, at: slice) -> None:
        if self._task.running and self._targets is not None:
            self.sums += self._task.score(logits[None], self._targets[None, at]).sum(1)


def _of_first(part: Part, classes: int, logits: Tensor, at: slice) -> Tensor:
    return part(logits[:, :classes], at)


def _checked_task(task: Task) -> int:
    """The label that a task of positions ignores.

    Raises:
        RequestError: The task has no class for each position, or a loss of its own.
    """
    if getattr(task, "axis", None) != 2 or task.own_loss is not None:
        raise RequestError(
            f"logits in chunks are for tasks with a class for each token, with their own loss, and not for {task!r}"
        )
    weights = getattr(task, "class_weights", None)
    if weights is not None and weights.beside(torch.zeros(1)) is not None:
        raise RequestError("logits in chunks know no class_weights; leave these or chunked out")
    return int(task.loss_options["ignore_index"])


def _reads_logits(one: BoundTerm) -> bool:
    return one.term.student == LOGITS and one.term.teacher == LOGITS


def _check_term(name: str, one: BoundTerm, ignored: int) -> None:
    """Raise RequestError for a term on logits that cannot be computed token by token."""
    if not _reads_logits(one):
        if LOGITS in _taps([one]) or LOGITS in _names(one.term.teacher):
            raise RequestError(f"term {name}: in chunks logits are compared with logits alone")
        return
    options = one.term.options
    if isinstance(one.term.loss, type) or one.term.adapter is not None:
        raise RequestError(f"term {name} trains something on logits, which are never all there in chunks")
    if options.get("average", "positions") != "positions" or options.get("ignore_index", ignored) != ignored:
        raise RequestError(
            f"term {name}: in chunks each token that the task counts has one weight; leave average and ignore_index out"
        )


def _taps(terms: Iterable[BoundTerm]) -> list[str]:
    """The student taps of some terms, in order."""
    return [name for one in terms for name in _names(one.term.student)]


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
