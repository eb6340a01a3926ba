"""Variational information distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.losses.maps import as_maps
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.samples import by_sample
from limbeck.losses.shapes import channels

_LEAST_VARIANCE = 1e-5


class VID(nn.Module):
    """Variational information: mean of ½ [(μ(f_s) − f_t)²/σ² + log σ²], σ² = softplus(ρ) + 1e-5 per channel.

    μ are three 1×1 convolutions without bias; μ and ρ are trained. The bound is least, ½ mean log σ², where μ(f_s) and
    f_t are equal.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        variance: σ² at the start.

    Transfers: as much of the teacher's features as the student's can tell, channel by channel.
    Use: networks of different kinds (the paper also teaches a perceptron by a CNN), and little training data.
    Source: Ahn et al.: Variational Information Distillation for Knowledge Transfer, CVPR 2019,
        arXiv:1904.05835; recommended weight 1.
    """

    rho: Tensor

    def __init__(self, student_channels: int, teacher_channels: int, *, variance: float = 5.0) -> None:
        super().__init__()
        width = teacher_channels
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, width, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.rho = nn.Parameter(torch.full((width,), math.log(math.expm1(variance - _LEAST_VARIANCE))))

    @classmethod
    def for_shapes(cls, student: Sequence[int], teacher: Sequence[int], *, variance: float = 5.0) -> VID:
        """One for tensors of these shapes, (B, C, H, W) or (B, D)."""
        return cls(*channels(student, teacher), variance=variance)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of (B, C_s, H_s, W_s) against (B, C_t, H_t, W_t), the larger map pooled: (B,) values.

        Raises:
            RequestError: Not two maps (or vectors) of one batch.
        """
        f_s, f_t = as_maps(student, teacher)
        variance = F.softplus(self.rho.to(f_s.dtype)) + _LEAST_VARIANCE
        squares = F.mse_loss(run_layer(self.mean, f_s), f_t, reduction="none").flatten(2)
        # σ² is one value a channel, so that it waits until the positions are summed up.
        error = squares.sum(2) / max(squares.shape[2], 1)
        return by_sample(error / variance + variance.log()) / 2
