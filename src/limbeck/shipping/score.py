"""What a model's outputs on a split are worth: the one place that knows which figure decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.measure.evaluation import evaluate
from limbeck.shipping.intervals import paired, wilson
from limbeck.types import Batch

MONITOR, MODE = "accuracy", "max"
"""The figure that decides, and its better direction."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Judged:
    """One model's outputs on a split.

    Attributes:
        logits: (N, C) of the samples with a label.
        labels: (N,) int64.
    """

    logits: Array
    labels: Array

    @property
    def hits(self) -> Array:
        """(N,) bool: whether the likeliest class is the label."""
        return np.asarray(self.logits.argmax(-1) == self.labels)

    @property
    def score(self) -> float:
        """The monitor."""
        return float(self.hits.mean())

    def drop(self, reference: Judged) -> float:
        """By how much the monitor is worse than another model's on the same samples."""
        return reference.score - self.score

    def distance(self, reference: Judged) -> float:
        """Mean squared difference of the logits over the variance of the other model's."""
        return distance(self.logits, reference.logits)


def distance(outputs: Array, reference: Array) -> float:
    """Mean squared difference over the variance of the reference; infinite where an output is not finite."""
    found = float(np.mean((outputs.astype(np.float64) - reference) ** 2) / max(float(np.var(reference)), 1e-12))
    return found if np.isfinite(found) else float("inf")


def figures(judged: Judged, teacher: Judged | None, baseline: Judged | None) -> dict[str, Any]:
    """What a row of the table says of a model's outputs on the test set.

    Args:
        judged: The model's.
        teacher: Its teacher's, for the agreement.
        baseline: The baseline's in torch, for a difference in pairs of samples.
    """
    logits, labels = torch.from_numpy(judged.logits), torch.from_numpy(judged.labels)
    whole: Iterable[Any] = [Batch(logits, labels, torch.arange(len(labels)))]
    found = evaluate(lambda inputs: torch.as_tensor(inputs), whole)
    told: dict[str, Any] = {
        "score": judged.score,
        "interval": list(wilson(int(judged.hits.sum()), len(labels))),
        "agreement": None if teacher is None else float((judged.logits.argmax(-1) == teacher.logits.argmax(-1)).mean()),
        "calibration_error": found["calibration_error"],
    }
    if baseline is not None:
        difference, interval = paired(judged.hits, baseline.hits)
        told["beside_baseline"] = {"difference": difference, "interval": list(interval)}
    return told
