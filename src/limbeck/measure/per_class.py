"""What a classifier knows of each class: the confusion matrix, and precision, recall and F1 by class."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor


def confusion(targets: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many samples of each class were taken for which.

    Args:
        targets: Labels, (N,); negative ones stand for samples without a label, and are left out.
        predicted: Predicted classes, (N,).
        classes: C, the number of classes.

    Returns:
        (C, C) int64: row i, column j counts the samples with label i that were taken for class j.

    >>> confusion(torch.tensor([0, 0, 1, -100]), torch.tensor([0, 1, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    known = targets >= 0
    pairs = targets[known] * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def per_class(counts: Tensor) -> list[dict[str, Any]]:
    """Each class's support, precision, recall and F1, from the confusion matrix (C, C) with labels as rows.

    What has no denominator (the recall of a class without samples, the precision of one that is never predicted) is
    None.
    """
    hits, labelled, predicted = (x.tolist() for x in (counts.diagonal(), counts.sum(1), counts.sum(0)))
    return [
        {
            "support": label,
            "precision": _ratio(hit, guess),
            "recall": _ratio(hit, label),
            "f1": _ratio(2 * hit, label + guess),
        }
        for hit, label, guess in zip(hits, labelled, predicted, strict=True)
    ]


def macro(classes: list[dict[str, Any]]) -> dict[str, float | None]:
    """The plain means over the classes; a figure that a class does not have is left out of its mean."""
    means: dict[str, float | None] = {}
    for figure in ("precision", "recall", "f1"):
        values = [one[figure] for one in classes if one[figure] is not None]
        means[figure] = statistics.fmean(values) if values else None
    return means


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
