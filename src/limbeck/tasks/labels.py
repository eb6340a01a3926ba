"""Labels as class indices: what is asked of them, and how rows without one are left out."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.shapes import in_range
from limbeck.types import Targets, labelled

ROUNDING = 0.02
"""By how much probabilities of half precision may miss the sum of 1."""
_NUMBERS = "numbers are for task=Regression() (in a recipe task: regression)"


def hard_labels(targets: Tensor) -> Tensor:
    """(B,) class indices, also of (B, 1); of (B, C) probabilities the likeliest class, of two classes' (B,) too."""
    if targets.dim() == 2 and targets.shape[1] == 1:
        targets = targets.squeeze(1)
    if targets.dim() == 1:
        return (targets > 0.5).long() if targets.is_floating_point() else targets
    return likeliest(targets)


def likeliest(output: Tensor, axis: int = -1) -> Tensor:
    """The index of the largest entry, the first of equal ones: `argmax`, which on CPUs takes up to four times as long.

    >>> likeliest(torch.tensor([[1.0, 2.0, 2.0]])).tolist()
    [1]
    """
    return output.max(axis).indices


def of_classes(targets: Targets, classes: int) -> Targets:
    """Targets as cross-entropy takes them: floats (B,) beside two classes are the probabilities of the second.

    >>> of_classes(torch.tensor([0.0, 1.0]), 2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if not isinstance(targets, Tensor) or not targets.is_floating_point() or targets.dim() != 1 or classes != 2:
        return targets
    return torch.stack([1 - targets, targets], 1)


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


def two_classes(logits: Tensor) -> Tensor:
    """One logit a sample, (B, 1) or (B,), as those of two classes, (0, z): its sigmoid is their softmax.

    >>> two_classes(torch.tensor([[2.0], [-1.0]])).tolist()
    [[0.0, 2.0], [0.0, -1.0]]
    """
    if logits.dim() == 1:
        logits = logits.unsqueeze(1)
    if logits.dim() != 2 or logits.shape[1] != 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], 1)


def check_classes(logits: Tensor, targets: Targets) -> None:
    """Raise RequestError for targets that cross-entropy with the logits (B, C, ...) does not take."""
    if not isinstance(targets, Tensor):
        raise RequestError("the loader gives no labels; give them, or leave the task loss out: task_weight 0")
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise RequestError(
                f"targets {tuple(targets.shape)} of {targets.dtype} must be class indices (targets.long()), or "
                f"probabilities of shape {tuple(logits.shape)}; {_NUMBERS}"
            )
        if bool(((targets < 0) | (targets > 1)).any()):
            raise RequestError(f"probabilities of classes lie between 0 and 1, and these targets do not; {_NUMBERS}")
        sums = targets.float().sum(1)
        if bool(((sums - 1).abs() > ROUNDING).any()):
            raise RequestError(
                f"probabilities of classes add up to 1, and those of a sample here to {sums.min():.3g} or "
                f"{sums.max():.3g}; several labels a sample are for task=MultiLabel() (in a recipe task: multi-label)"
            )
        return
    if targets.dtype not in (torch.int64, torch.uint8):
        raise RequestError(f"class indices are of {targets.dtype}; cross-entropy takes int64: targets.long()")
    classes, wanted = logits.shape[1], logits.shape[:1] + logits.shape[2:]
    if targets.shape != wanted:
        raise RequestError(f"class indices {tuple(targets.shape)} must have the shape {tuple(wanted)} for the student")
    in_range(targets, classes, labelled(targets))
