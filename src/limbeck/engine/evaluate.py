"""What a model is worth on a data set: loss, top-1, top-5, calibration, agreement with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from limbeck.engine.source import Source
from limbeck.errors import RequestError
from limbeck.teachers import Teacher
from limbeck.types import Inputs


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one data set.

    Attributes:
        samples: How many there were.
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


@torch.no_grad()
def evaluate(
    predict: Callable[[Inputs], Tensor],
    loader: Iterable[Any],
    *,
    device: torch.device | str = "cpu",
    teacher: Teacher | None = None,
) -> Evaluation:
    """Run a model once over a loader.

    Args:
        predict: From inputs to logits (B, C); put a model in eval mode before (`Scheme.predict` within `evaluating`).
        loader: Batches, or pairs (inputs, targets).
        device: Where the batches go.
        teacher: To measure agreement with.

    Raises:
        RequestError: The loader is empty.
    """
    outputs, labels, choices = [], [], []
    for batch in Source(loader, torch.device(device)).starting_at():
        outputs.append(predict(batch.inputs).float())
        labels.append(batch.targets if batch.targets.dim() == 1 else batch.targets.argmax(-1))
        if teacher is not None:
            signal = teacher(batch).logits
            if signal is not None:
                choices.append(signal.argmax(-1))
    if not outputs:
        raise RequestError("nothing to evaluate: the loader gives no batch at all")
    logits, targets = torch.cat(outputs), torch.cat(labels)
    first = logits.argmax(-1)
    classes = logits.shape[1]
    probabilities = logits.softmax(-1)
    return Evaluation(
        samples=len(targets),
        loss=F.cross_entropy(logits, targets).item(),
        top1=_share(first == targets),
        top5=_share((logits.topk(5).indices == targets[:, None]).any(-1)) if classes > 5 else None,
        calibration_error=multiclass_calibration_error(probabilities, targets, classes, n_bins=15).item(),
        agreement=_share(first == torch.cat(choices)) if choices else None,
    )


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
