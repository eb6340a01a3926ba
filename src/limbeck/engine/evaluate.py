"""What a model is worth on a data set: loss, top-1, top-5, calibration, agreement with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from limbeck.distillers import Scheme
from limbeck.engine.labels import hard_labels, with_labels
from limbeck.engine.source import Source
from limbeck.errors import RequestError
from limbeck.models import device_of
from limbeck.teachers import Teacher
from limbeck.types import Batch, Inputs


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one data set.

    Attributes:
        samples: How many there were with a label; only those count, but for the agreement.
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
        logits = teacher(batch).logits
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
    outputs: dict[str, list[Tensor]] = {}
    labels, choices = [], []
    for batch in Source(loader, torch.device(device)).starting_at():
        for name, logits in predict(batch).items():
            # A copy, as a function may give the same memory each time.
            outputs.setdefault(name, []).append(logits.to(torch.float32, copy=True))
        labels.append(hard_labels(batch.targets))
        said = teacher(batch).logits if teacher is not None else None
        if said is not None:
            choices.append(said.argmax(-1))
    if not outputs:
        raise RequestError("nothing to evaluate: the loader gives no batch at all")
    targets = torch.cat(labels)
    choice = torch.cat(choices) if choices else None
    return {name: _figures(torch.cat(logits), targets, choice) for name, logits in outputs.items()}


def _figures(logits: Tensor, targets: Tensor, teacher_choice: Tensor | None) -> Evaluation:
    agreement = None if teacher_choice is None else _share(logits.argmax(-1) == teacher_choice)
    logits, targets = with_labels(logits, targets)
    classes = logits.shape[1]
    return Evaluation(
        samples=len(targets),
        loss=F.cross_entropy(logits, targets).item(),
        top1=_share(logits.argmax(-1) == targets),
        top5=_share((logits.topk(5).indices == targets[:, None]).any(-1)) if classes > 5 else None,
        calibration_error=multiclass_calibration_error(logits.softmax(-1), targets, classes, n_bins=15).item(),
        agreement=agreement,
    )


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
