"""The accuracy of a network with several exits when each sample may leave early: accuracy against compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from limbeck.distillers import SelfDistiller
from limbeck.engine.batches.source import Source
from limbeck.errors import RequestError
from limbeck.models import device_of
from limbeck.taps import evaluating
from limbeck.tasks.labels import hard_labels, with_labels


@dataclass(frozen=True)
class ExitRecord:
    """What each exit said of every sample that has a label, shallowest exit first.

    Attributes:
        confidence: (N, exits) largest softmax probability.
        hits: (N, exits) bool, whether the most likely class is the label.
        ensemble: (N,) bool, the same for the mean of all logits.
    """

    confidence: Tensor
    hits: Tensor
    ensemble: Tensor


@dataclass(frozen=True)
class EarlyPoint:
    """Early exit at one threshold.

    Attributes:
        threshold: Least confidence at which a sample leaves.
        accuracy: Share of samples whose answer, at the exit where they leave, is right.
        multiply_adds: Mean over the samples.
        shares: Share of samples that leave at each exit, shallowest first.
    """

    threshold: float
    accuracy: float
    multiply_adds: float
    shares: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return {**asdict(self), "shares": list(self.shares)}


@torch.no_grad()
def ask_exits(scheme: SelfDistiller, loader: Iterable[Any], device: torch.device | str | None = None) -> ExitRecord:
    """Run every sample through all exits, once.

    Raises:
        RequestError: The loader is empty, none of its samples has a label, or the network has a single exit.
    """
    confidence, hits, ensemble, labels = [], [], [], []
    with evaluating(scheme):
        for batch in Source(loader, torch.device(device or device_of(scheme))).starting_at():
            *exits, joint = scheme.predictions(batch.inputs).values()
            logits = torch.stack([one.float() for one in exits], dim=1)
            confidence.append(logits.softmax(-1).amax(-1).cpu())
            labels.append(hard_labels(batch.targets).cpu())
            hits.append(logits.argmax(-1).cpu() == labels[-1][:, None])
            ensemble.append(joint.argmax(-1).cpu() == labels[-1])
    if not hits:
        raise RequestError("nothing to evaluate: the loader gives no batch at all")
    whole = torch.cat(labels)
    return ExitRecord(*(with_labels(torch.cat(parts), whole)[0] for parts in (confidence, hits, ensemble)))


def early_point(record: ExitRecord, costs: Sequence[int], threshold: float) -> EarlyPoint:
    """What `limbeck.models.networks.multi_exit.early_exit` at a threshold would answer, and what that would cost.

    Args:
        record: What each exit said of N samples.
        costs: Multiply-adds of a sample that leaves at each exit, shallowest first.
        threshold: Least confidence at which a sample leaves; the deepest exit takes all that come to it.

    >>> sure, right = torch.tensor([[0.9, 0.9], [0.6, 0.7]]), torch.tensor([[True, True], [False, True]])
    >>> early_point(ExitRecord(sure, right, right[:, 1]), [10, 30], 0.8)
    EarlyPoint(threshold=0.8, accuracy=1.0, multiply_adds=20.0, shares=(0.5, 0.5))
    """
    leaves = record.confidence >= threshold
    leaves[:, -1] = True
    used = leaves.int().argmax(dim=1)  # the first exit of several
    counts = used.bincount(minlength=len(costs)).tolist()
    samples = len(used)
    right = int(record.hits.gather(1, used[:, None]).sum())
    spent = sum(count * cost for count, cost in zip(counts, costs, strict=True))
    return EarlyPoint(threshold, right / samples, spent / samples, tuple(count / samples for count in counts))


def cheapest(points: Iterable[EarlyPoint], least: float) -> EarlyPoint | None:
    """The point of the fewest multiply-adds whose accuracy is `least` or more; None where there is none."""
    return min((point for point in points if point.accuracy >= least), key=lambda p: p.multiply_adds, default=None)
