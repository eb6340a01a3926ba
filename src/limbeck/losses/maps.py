"""Feature maps of different sizes, brought to one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.shapes import agree


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool (B, C, H, W) maps to the smaller height and the smaller width of the two."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return pool_to(student, size), pool_to(teacher, size)


def pool_to(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """Average-pool a (B, C, H, W) map to `size`; the map itself where it has that size."""
    if feature.shape[2:] == size:
        return feature
    (height, width), (rest_y, rest_x) = zip(*map(divmod, feature.shape[2:], size), strict=True)
    if rest_y or rest_x:
        return F.adaptive_avg_pool2d(feature, size)
    return F.avg_pool2d(feature, (height, width))  # the same, whose gradient repeats its bits on GPUs


def as_maps(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two (B, C, H, W) maps of one size; (B, D) vectors count as maps of 1×1."""
    agree(student, teacher, (2, 4), 0)
    s, t = (f[:, :, None, None] if f.dim() == 2 else f for f in (student, teacher))
    return pool_to_smaller(s, t)
