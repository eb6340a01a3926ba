"""One value a sample: means over all but the batch."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def by_sample(values: Tensor) -> Tensor:
    """(B,) mean of a (B, ...) tensor over all but the batch; 0 of nothing."""
    # The gradient of a mean is divided element by element, one pass more over the whole tensor.
    return values.sum(tuple(range(1, values.dim()))) * (1 / max(math.prod(values.shape[1:]), 1))


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """(B,) mean of (student − teacher)² over all but the batch."""
    return by_sample(F.mse_loss(student, teacher, reduction="none"))
