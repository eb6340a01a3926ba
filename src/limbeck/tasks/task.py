"""What is learned: the one object that knows what a batch, an output, a loss on labels and a score are."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from limbeck.errors import RequestError, as_request, shown
from limbeck.taps import Choice, check_choice, output_of
from limbeck.tasks.items import as_batch, described
from limbeck.tasks.metrics import Metrics, WithLibrary
from limbeck.types import Batch, Targets

Mode = Literal["max", "min"]
"""Whether a larger or a smaller score is better."""


class Measure(Protocol):
    """A metric of torchmetrics, or one with the same methods."""

    def update(self, preds: Tensor, target: Tensor) -> Any: ...

    def compute(self) -> Any: ...


def _check_called(name: str, given: Any, takes: str, gives: str) -> None:
    if given is not None and not callable(given):
        raise RequestError(f"{name} is a function of ({takes}) that gives {gives}, not {shown(given)}")


def _check_measure(name: str, given: Any) -> None:
    if not all(callable(getattr(given, one, None)) for one in ("update", "compute")):
        raise RequestError(
            f"metric {name} is an object with update(outputs, targets) and compute(), such as one of torchmetrics, not "
            f"{shown(given)}"
        )


class Task:
    """What a scheme asks of whatever is learned. A scheme owns one; engine, teachers and stores know none.

    A task of your own is a subclass with `loss`, `own_metrics`, `monitor` and `mode`, and whatever else differs.

    Args:
        batch: From what a loader gives to `(inputs, targets)`, or to a `Batch`; None takes pairs, triples, dicts and
            inputs alone (`limbeck.tasks.items.as_batch`).
        output: Which part of what a model returns is its output; None takes a tensor, its field "logits", or the
            first fitting tensor of a tuple.
        loss: `loss(output, targets) -> Tensor` in place of the task's own.
        metrics: Metrics of torchmetrics by name, beside the task's own.
        monitor: Which metric selects checkpoints and is compared, in place of the task's own; with `mode`.

    Attributes:
        monitor: The metric that selects a checkpoint and that comparisons report.
        mode: "max" where a higher one is better, else "min".
        labelled: Whether there are labels; without, there is no baseline, and metrics compare with the teacher.
        running: Name of the quick figure that is shown while training (`score`); None for none.
        classifies: Whether outputs are logits of classes, which a softmax makes probabilities of.
    """

    monitor: str
    mode: Mode
    labelled = True
    running: str | None = None
    classifies = False
    loss_options: Mapping[str, Any] = {}
    """What a term's loss gets where it has an option of this name and the term says nothing of it."""

    def __init__(
        self,
        *,
        batch: Callable[[Any], Any] | None = None,
        output: Choice = None,
        loss: Callable[[Tensor, Targets], Tensor] | None = None,
        metrics: Mapping[str, Measure] | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
    ) -> None:
        if (monitor is None) != (mode is None):
            raise RequestError("monitor and mode are given together: which metric counts, and whether more is better")
        if mode not in (None, "max", "min"):
            raise RequestError(f"mode is max or min, not {mode!r}")
        _check_called("batch", batch, "item", "(inputs, targets)")
        _check_called("loss", loss, "output, targets", "one value")
        check_choice(output)
        self._batch, self._output, self._loss = batch, output, loss
        self._measures = dict(metrics or {})
        for name, measure in self._measures.items():
            _check_measure(name, measure)
        if monitor is not None and mode is not None:
            self.monitor, self.mode = monitor, mode

    @property
    def name(self) -> str:
        """What recipes call it, as "token-classification"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    @property
    def classifies_samples(self) -> bool:
        """Whether each sample as a whole has one class: `classifies`, with outputs (B, C), not a class a position."""
        return self.classifies

    @property
    def own_loss(self) -> Callable[[Tensor, Targets], Tensor] | None:
        """The loss that was given in place of the task's own."""
        return self._loss

    @property
    def choice(self) -> Choice:
        """Which part of what a model returns was said to be its output; None where it is found."""
        return self._output

    def reading(self, output: Choice) -> Self:
        """The same task with another part of what a model returns as its output."""
        copied = copy.copy(self)
        copied._output = output
        return copied

    def batch(self, item: Any) -> Batch:
        """A batch of what a loader gives.

        Raises:
            RequestError: It is nothing that can be read as inputs and targets.
        """
        if self._batch is None or isinstance(item, Batch):
            return self.unlabelled(as_batch(item))
        with as_request(
            lambda reason: f"the task's batch= cannot read {described(item)}, what a loader gave: {reason}"
        ):
            given = self._batch(item)
        return self.unlabelled(as_batch(given))

    def unlabelled(self, batch: Batch) -> Batch:
        """The batch, where it has no targets with those that say so, if the task has such."""
        return batch

    def output(self, raw: Any, classes: int | None = None) -> Tensor:
        """What losses compare, in what a model returns.

        Args:
            raw: What it returned.
            classes: How wide the output is, where that is known: tells it from other tensors of a tuple.

        Raises:
            RequestError: There is none.
        """
        return output_of(raw, self._output, classes)

    def check_output(self, output: Tensor) -> None:
        """Raise RequestError for an output that has not the task's form."""

    def check_kind(self, targets: Targets) -> None:
        """Raise RequestError for targets that are no tensor, where the task's figures are made of tensors."""
        if self.running and targets is not None and not isinstance(targets, Tensor):
            named = isinstance(targets, Mapping) and bool(targets)
            wanted = f"item[1][{next(iter(targets))!r}]" if named else "torch.tensor(…)"
            raise RequestError(
                f"{self.name} learns targets that are one tensor, and these are {described(targets)}: say how a batch "
                f"is read, as task={type(self).__name__}(batch=lambda item: (item[0], {wanted}))"
            )

    def check(self, output: Tensor, targets: Targets) -> None:
        """Raise RequestError for targets that the loss with this output does not take."""

    def check_end(self, output: Tensor) -> None:
        """Raise RequestError for a student that ends in something else than what losses take, such as a softmax."""

    def check_teacher(self, output: Tensor, targets: Targets, *, learned: bool) -> list[str]:
        """Look at a teacher's first outputs beside the targets: what should be said of them, a line each.

        Args:
            output: The outputs.
            targets: Those of the batch.
            learned: Whether the targets mean something; where nothing learns them, they may be any.

        Raises:
            RequestError: They cannot be what losses take, such as probabilities.
        """
        return []

    def known(self, targets: Targets) -> Tensor:
        """Which targets count, as booleans: a sample each, or a position each."""
        return torch.ones(len(targets), dtype=torch.bool, device=getattr(targets, "device", None))

    def size(self, batch: Batch) -> int:
        """Over how many the loss of a batch is a mean: accumulated batches are weighted by it."""
        return batch.size

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        """The loss on labels, one value: a mean."""
        raise NotImplementedError

    def score(self, output: Tensor, targets: Targets) -> Tensor:
        """(2, B): of each sample a sum, and over how many it is one; their quotient is the figure `running`."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        """What is measured on held-out data: a new, empty one at each call."""
        return WithLibrary(self.own_metrics(), self._measures) if self._measures else self.own_metrics()

    def own_metrics(self) -> Metrics:
        """The task's own metrics."""
        raise NotImplementedError

    def better(self, one: float, other: float | None) -> bool:
        """Whether a score is better than another; None is worse than any."""
        return other is None or (one > other if self.mode == "max" else one < other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(monitor={self.monitor!r}, mode={self.mode!r})"
