"""Evaluation: a model's figures on a data set, such as accuracy, calibration, agreement with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distillers import Scheme
from limbeck.engine.batches.held_out import HeldOut
from limbeck.engine.batches.streams import as_loader
from limbeck.engine.validation import Hear, figures, predictions
from limbeck.errors import RequestError, unknown
from limbeck.models import device_of
from limbeck.taps import call
from limbeck.tasks import Classification, Task
from limbeck.teachers import Teacher
from limbeck.types import Inputs


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one data set.

    Attributes:
        samples: How many there were with a label; only those count, but for what compares with the teacher.
        metrics: The task's figures by name (`limbeck.tasks`); those that have no meaning there are left out.
        monitor: The metric that selects and compares.
        mode: "max" where a higher one is better, else "min".

    >>> evaluate(lambda x: x, [(torch.eye(3), torch.tensor([0, 1, 0]))])["accuracy"]
    0.6666666666666666
    """

    samples: int
    metrics: Mapping[str, float]
    monitor: str
    mode: str

    def __getitem__(self, name: str) -> float:
        if name not in self.metrics:
            raise unknown("metric", name, self.metrics)
        return self.metrics[name]

    @property
    def score(self) -> float:
        """The metric that selects and compares."""
        return self[self.monitor]

    def as_dict(self) -> dict[str, Any]:
        """The number of samples, and the figures by name."""
        return {"samples": self.samples, **self.metrics}


def evaluate(
    predict: Callable[[Inputs], Any],
    loader: Iterable[Any],
    *,
    task: Task | None = None,
    device: torch.device | str | None = None,
    teacher: Teacher | None = None,
    hear: Hear | None = None,
) -> Evaluation:
    """Run a model once over a loader.

    Args:
        predict: From inputs to outputs; put a model in eval mode before (`Scheme.predict` within `evaluating`). A
            module gets named inputs as keyword arguments, as in a training.
        loader: Batches, or what the task reads as such, as pairs (inputs, targets).
        task: What is measured; `Classification()` by default.
        device: Where the batches go; by default where the model lies, if `predict` is one or a method of one.
        teacher: To measure agreement with.
        hear: Gets outputs and targets, batch by batch, as predictions without a name.

    Raises:
        RequestError: The loader is empty, or none of its samples has a label.
    """
    owner = getattr(predict, "__self__", predict)
    if device is None:
        device = device_of(owner) if isinstance(owner, nn.Module) else "cpu"
    learned = task or (owner.task if isinstance(owner, Scheme) else Classification())
    held_out = _held_out(loader, device, learned)
    run: Callable[[Inputs], Any] = partial(call, predict) if isinstance(predict, nn.Module) else predict
    found = figures(lambda batch: {"": learned.output(run(batch.inputs))}, held_out, learned, teacher, hear)
    return made(found[""], learned)


def evaluate_each(
    scheme: Scheme,
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    teacher: Teacher | None = None,
    hear: Hear | None = None,
) -> dict[str, Evaluation]:
    """Run a scheme once over a loader: an evaluation for each of its predictions, `scheme.chosen` among them.

    `hear` gets each prediction's name, outputs and targets, batch by batch, where the caller wants more than figures.
    `HeldOut` in place of the loader shares its samples out over processes: each runs its part, and all get the figures
    of the whole.

    Raises:
        RequestError: The loader is empty, or none of its samples has a label.
    """
    held_out = _held_out(loader, device or device_of(scheme), scheme.task)
    found = figures(lambda batch: predictions(scheme, batch), held_out, scheme.task, teacher, hear)
    return {name: made(some, scheme.task) for name, some in found.items()}


def evaluate_teacher(
    teacher: Teacher, loader: Iterable[Any], *, task: Task | None = None, device: torch.device | str = "cpu"
) -> Evaluation:
    """Run a teacher once over a loader.

    Raises:
        RequestError: The loader is empty, none of its samples has a label, or the teacher gives features alone.
    """
    learned = task or Classification()

    def output(given: Tensor | None) -> Tensor:
        if given is None:
            raise RequestError("this teacher gives no output but features, so it cannot be evaluated")
        return learned.output(given)

    held_out = _held_out(loader, device, learned)
    found = figures(lambda batch: {"": output(teacher(batch).output)}, held_out, learned)
    return made(found[""], learned)


def made(found: Mapping[str, float], task: Task) -> Evaluation:
    """An evaluation of a task's figures."""
    metrics = {name: value for name, value in found.items() if name != "samples"}
    return Evaluation(round(found["samples"]), metrics, task.monitor, task.mode)


def _held_out(loader: Iterable[Any], device: torch.device | str, task: Task) -> HeldOut:
    if isinstance(loader, HeldOut):
        return loader
    return HeldOut(as_loader(loader, "the loader"), torch.device(device), read=task.batch)
