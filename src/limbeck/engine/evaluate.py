"""What a model is worth on a data set: loss, top-1, top-5, calibration, agreement with its teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distillers import Scheme
from limbeck.engine.held_out import HeldOut
from limbeck.engine.tally import Sums, Tally
from limbeck.errors import RequestError
from limbeck.models import device_of
from limbeck.teachers import Teacher
from limbeck.types import Batch, Inputs


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one data set.

    Attributes:
        samples: How many there were with a label (not -100); only those count, but for the agreement.
        loss: Mean cross-entropy with the labels, in nats.
        top1: Share of samples whose label is the most likely class.
        top5: Share whose label is among the five most likely; None with five classes or fewer.
        calibration_error: Expected calibration error over 15 bins of equal width (0 = confidence is accuracy).
        agreement: Share of samples on which model and teacher have the same first choice; None without a teacher.
    """

    samples: int
    loss: float
    top1: float
    top5: float | None
    calibration_error: float
    agreement: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def evaluate(
    predict: Callable[[Inputs], Tensor],
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    teacher: Teacher | None = None,
) -> Evaluation:
    """Run a model once over a loader.

    Args:
        predict: From inputs to logits (B, C); put a model in eval mode before (`Scheme.predict` within `evaluating`).
        loader: Batches, or pairs (inputs, targets).
        device: Where the batches go; by default where the model lies, if `predict` is one or a method of one.
        teacher: To measure agreement with.

    Raises:
        RequestError: The loader is empty, or none of its samples has a label.
    """
    if device is None:
        owner = getattr(predict, "__self__", predict)
        device = device_of(owner) if isinstance(owner, nn.Module) else "cpu"
    return _evaluate(lambda batch: {"student": predict(batch.inputs)}, loader, device, teacher)["student"]


def evaluate_each(
    scheme: Scheme, loader: Iterable[Any], *, device: torch.device | str | None = None, teacher: Teacher | None = None
) -> dict[str, Evaluation]:
    """Run a scheme once over a loader: an evaluation for each of its predictions, `scheme.chosen` among them.

    `HeldOut` in place of the loader shares its samples out over processes: each runs its part, and all get the figures
    of the whole.

    Raises:
        RequestError: The loader is empty, or none of its samples has a label.
    """

    def predict(batch: Batch) -> Mapping[str, Tensor]:
        return scheme.predictions(batch.inputs) or {scheme.chosen: scheme.predict(batch.inputs)}

    return _evaluate(predict, loader, device or device_of(scheme), teacher)


def evaluate_teacher(teacher: Teacher, loader: Iterable[Any], *, device: torch.device | str = "cpu") -> Evaluation:
    """Ask a teacher once about a loader's samples.

    Raises:
        RequestError: The loader is empty, none of its samples has a label, or the teacher gives no logits.
    """

    def predict(batch: Batch) -> Mapping[str, Tensor]:
        logits = teacher(batch).output
        if logits is None:
            raise RequestError("this teacher gives no logits, so it cannot be evaluated")
        return {"teacher": logits}

    return _evaluate(predict, loader, device, None)["teacher"]


@torch.no_grad()
def _evaluate(
    predict: Callable[[Batch], Mapping[str, Tensor]],
    loader: Iterable[Any],
    device: torch.device | str,
    teacher: Teacher | None,
) -> dict[str, Evaluation]:
    held_out = loader if isinstance(loader, HeldOut) else HeldOut(loader, torch.device(device))
    tallies: dict[str, Tally] = {}
    for batch, counted in held_out:
        said = teacher(batch).output if teacher is not None else None
        for name, logits in predict(batch).items():
            tally = tallies.setdefault(name, Tally())
            tally.add(logits[:counted], batch.targets[:counted], None if said is None else said[:counted])
    sums = held_out.joined({name: tally.sums() for name, tally in tallies.items()})
    if not sums:
        raise RequestError("nothing to evaluate: the loader gives no batch at all")
    return {name: _figures(one) for name, one in sums.items()}


def _figures(sums: Sums) -> Evaluation:
    samples, loss, top1, top5, agreed, asked, *bins = sums.values
    if not samples:
        raise RequestError("nothing to evaluate: no sample has a label")
    sure, right = bins[: len(bins) // 2], bins[len(bins) // 2 :]
    return Evaluation(
        samples=round(samples),
        loss=loss / samples,
        top1=top1 / samples,
        top5=top5 / samples if sums.classes > 5 else None,
        calibration_error=math.fsum(abs(a - b) for a, b in zip(sure, right, strict=True)) / samples,
        agreement=agreed / asked if asked else None,
    )
