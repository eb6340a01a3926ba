"""What every way of distilling has in common: one contract, (batch, teacher_output) → Step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, shown
from limbeck.losses.shapes import check_temperature
from limbeck.models.foreign.programs import refuse_program
from limbeck.models.given import check_network
from limbeck.options import is_number
from limbeck.taps import Conversion, NoOutputError, call, heads_of
from limbeck.taps.wrappers import is_compiled, is_shared, unwrapped
from limbeck.tasks import Classification, Task
from limbeck.tasks.of_loss import of_loss
from limbeck.types import Batch, Inputs, Step, Targets, TeacherOutput

TaskLoss = Callable[[Tensor, Any], Tensor]


class Scheme(nn.Module):
    """A student with all that is trained beside it; the engine wraps it once, and calls it once a step.

    Subclasses give `forward(batch, teacher_output) -> Step`, and `prepare` where they size something by an example.

    Args:
        student: The model to ship; of a wrapped one (torch.compile, DataParallel, Fabric) the plain network is trained.
        inputs: What prepares the student's inputs (`limbeck.models`: Preprocess, NamedInputs); None leaves them.
        task: What is learned; `Classification()` by default, or what the task loss is for.
        task_loss: `task_loss(output, targets) -> Tensor` in place of the task's own, where no task is given.

    Attributes:
        chosen: The name, among `predictions`, of what `predict` gives.
        is_compiled: Whether the student came compiled.
        is_shared: Whether it came in a wrapper that shares gradients among processes, such as DistributedDataParallel.
        reads: How inputs are brought to a dtype that the student can read; None leaves them. `fit` finds it out.
        two_heads: Whether the student returns the logits of two heads in training, and their mean in evaluation, as
            DeiT does; that mean is then its answer in training too. `fit` finds it out.
        classes: How many its logits are, None until `fit` finds it out; tells them from what it returns beside them.
    """

    chosen = "student"

    def __init__(
        self,
        student: nn.Module,
        inputs: nn.Module | None = None,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
    ) -> None:
        super().__init__()
        check_network("a student", student)
        if inputs is not None:
            check_network("what prepares the inputs", inputs)
        refuse_program(student)
        self.student = unwrapped(student)
        self.is_compiled = is_compiled(student)
        self.is_shared = is_shared(student)
        self.inputs = inputs
        self.task = learned(task, task_loss)
        self.epoch = 0
        self.reads: Conversion | None = None
        self.two_heads = False
        self.classes: int | None = None
        self._frozen: dict[nn.Module, list[nn.Module]] = {}

    def train(self, mode: bool = True) -> Self:
        """Put everything in training mode, but for modules in eval mode inside a network in training mode.

        So a batch norm that its user froze by eval() keeps its statistics, also after an evaluation of the scheme.
        """
        for network in held(self):
            if network.training:
                self._frozen[network] = [module for module in network.modules() if not module.training]
        super().train(mode)
        if mode:
            for module in itertools.chain.from_iterable(self._frozen.values()):
                module.training = False
        return self

    @property
    def teacher_taps(self) -> Sequence[str]:
        """The taps that a teacher must give."""
        return ()

    @property
    def why_uncompiled(self) -> str:
        """Why the student cannot be compiled: what of it is read that compiled code does not show; "" where it can."""
        return ""

    @property
    def teacher_logits(self) -> bool:
        """Whether a teacher's logits are read; where not, it may run only as deep as its taps."""
        return True

    @property
    def teacher_temperatures(self) -> Sequence[float]:
        """The temperatures by which a teacher's logits are softened, each once."""
        return ()

    @property
    def leaves_out(self) -> bool:
        """Whether a step gives some trained parameters no gradient, such as a classifier behind the last hint."""
        return False

    @property
    def trains_student(self) -> bool:
        """Whether the loss depends on the student; where not, it trains what stands beside it alone."""
        return True

    @property
    def takes_sparse(self) -> bool:
        """Whether a teacher's likeliest classes are read as they are stored, in place of all logits."""
        return False

    @property
    def generates(self) -> bool:
        """Whether some of the texts are the student's own, about which a store knows nothing."""
        return False

    def asked(self, batch: Batch, first: int | None = None) -> Batch:
        """What teacher and student read of a training batch, before the teacher is asked: the batch as it is.

        Args:
            batch: A process's.
            first: Of several processes that read a batch together, its first sample; None: the first of `batch`.
        """
        return batch

    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Check that student and teacher fit, and size what depends on their shapes; before the optimizer is made."""

    def at(self, epoch: int) -> None:
        """Tell the scheme which epoch (from 0) begins, for weights that follow a schedule."""
        self.epoch = epoch

    def predict(self, inputs: Inputs) -> Tensor:
        """The output by which checkpoints are chosen, such as logits (B, C): the student's."""
        return self.answer(call(self.student, self.prepared(inputs)))

    def answer(self, output: Any) -> Tensor:
        """The task's output in what the student returned."""
        if self.two_heads and (heads := heads_of(output)):
            return (heads[0] + heads[1]) / 2
        try:
            return self.task.output(output, self.classes)
        except NoOutputError as error:
            raise error.of("student") from error

    def predictions(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """Outputs that are measured each, by name, with `predict`'s under `chosen`; {} for that alone."""
        return {}

    def prepared(self, inputs: Inputs) -> Inputs:
        """The inputs as the student reads them."""
        if self.reads is not None:
            inputs = self.reads.before(inputs)
        if self.inputs is not None:
            inputs = self.inputs(inputs)
        return inputs if self.reads is None else self.reads.after(inputs)

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        raise NotImplementedError


def held(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that a module holds, those in lists and dicts of modules included."""
    for child in module.children():
        if is_container(child):
            yield from held(child)
        else:
            yield child


def is_container(module: nn.Module) -> bool:
    """Whether a module only holds others, and computes nothing."""
    return isinstance(module, nn.ModuleList | nn.ModuleDict)


def weighted_sum(parts: Iterable[Tensor], weights: Iterable[float]) -> Tensor:
    """Σ weight · part, of at least one part, in as few operations as there are parts."""
    total: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        total = part * weight if total is None else torch.add(total, part, alpha=weight)
    if total is None:
        raise RequestError("there is no part to add up")
    return total


def refuse_teacher(scheme: Scheme, teacher_output: TeacherOutput | None) -> None:
    """Raise RequestError where a scheme that teaches itself was given a teacher."""
    if teacher_output is not None:
        raise RequestError(f"{type(scheme).__name__} is its own teacher, and another was given; leave that out")


def learned(task: Task | None, loss: TaskLoss | None) -> Task:
    """What is learned: the task that is given, or that which a loss is for, or classification.

    Raises:
        RequestError: Both are given, or the task is none.
    """
    if loss is None:
        return Classification() if task is None else checked_task(task)
    if task is not None:
        raise RequestError(f"give the loss to the task: task={type(task).__name__}(loss=…), without task_loss")
    return of_loss(loss)


def checked_task(task: Task) -> Task:
    """The task, if it is one.

    Raises:
        RequestError: It is something else, such as the class of a task.
    """
    if isinstance(task, Task):
        return task
    hint = f"{task.__name__}()" if isinstance(task, type) else "Classification()"
    raise RequestError(f"a task is an object such as limbeck.tasks.{hint}, not {task!r}")


def check_classifies(scheme: Scheme) -> None:
    """Raise RequestError where a scheme whose losses compare class probabilities has a task without classes."""
    if not scheme.task.classifies:
        raise RequestError(
            f"{type(scheme).__name__} compares probabilities of a sample's classes, and {scheme.task!r} has none; take "
            "Distiller with terms that compare what there is"
        )


def check_targets(task: Task, output: Tensor, targets: Targets) -> None:
    """Raise RequestError for targets that the task's own loss does not take; one of the user's own may take others."""
    if task.own_loss is None:
        task.check(output, targets)


def check_options(*, temperature: float, **weights: float) -> None:
    """Raise RequestError for a temperature that is no number above 0, or a weight below 0."""
    if not is_number(temperature):  # a loss takes a tensor too
        raise RequestError(f"temperature must be above 0 and finite, not {shown(temperature)}")
    check_temperature(temperature)
    for name, weight in weights.items():
        if not (is_number(weight) and weight >= 0):
            raise RequestError(f"{name} must be 0 or more, not {shown(weight)}")
