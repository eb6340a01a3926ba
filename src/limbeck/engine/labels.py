"""The labels of a batch as class indices, for whatever counts how many predictions are right."""

from __future__ import annotations

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.types import labelled


def hard_labels(targets: Tensor) -> Tensor:
    """(B,) class indices; of (B, C) probabilities the likeliest class."""
    return targets if targets.dim() == 1 else targets.argmax(-1)


def with_labels(answers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of some answers whose class index is a label, and these.

    Raises:
        RequestError: There is none.
    """
    known = labelled(labels)
    if known.all():
        return answers, labels
    if not known.any():
        raise RequestError("nothing to evaluate: no sample has a label")
    return answers[known], labels[known]
