"""One value a sample: means over all but the batch, and nothing for samples without a label."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.looks import can_look
from limbeck.losses.shapes import in_range
from limbeck.types import labelled


def by_sample(values: Tensor, tokens: Tensor | None = None) -> Tensor:
    """(B,) mean of a (B, ...) tensor over all but the batch; 0 of nothing.

    Args:
        values: What is averaged.
        tokens: Where that counts, as booleans that broadcast over the values; None for everywhere.
    """
    rest = tuple(range(1, values.dim()))
    if tokens is not None:
        counted = tokens.expand_as(values)
        return values.where(counted, 0).sum(rest) / counted.sum(rest).clamp(min=1)
    # The gradient of a mean is divided element by element, one pass more over the whole tensor.
    return values.sum(rest) * (1 / max(math.prod(values.shape[1:]), 1))


def mean_square(student: Tensor, teacher: Tensor, tokens: Tensor | None = None) -> Tensor:
    """(B,) mean of (student − teacher)² over all but the batch, where there are tokens."""
    return by_sample(F.mse_loss(student, teacher, reduction="none"), tokens)


def known_labels(targets: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """Class indices that can be looked up, 0 where there is no label; and which samples have one, None if all have.

    Raises:
        RequestError: A label is out of range; on an accelerator nothing is raised, as that would stop the queue.
    """
    look = can_look(targets)
    if look and 0 <= int(targets.min()) <= int(targets.max()) < classes:
        return targets.long(), None
    known = labelled(targets)
    if look:
        in_range(targets, classes, known)
    return targets.where(known, 0).long(), known


def where_known(values: Tensor, known: Tensor | None) -> Tensor:
    """(B,) values, 0 without a gradient where a sample has no label."""
    return values if known is None else values.where(known, 0.0)
