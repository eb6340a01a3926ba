"""Masked generative distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.maps import as_maps
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import channels

Mask = Literal["positions", "channels"]


class MGD(nn.Module):
    """Masked generation: mean of (G(align(f_s) · M) − f_t)², the teacher's map made from a masked student's.

    M is 0 at random positions, all channels alike, or for random channels, all positions alike; it is drawn anew in
    each call from torch's global generator, and in eval mode nothing is masked. align is a 1×1 convolution
    where the channels differ, else nothing, G two 3×3 ones with a ReLU; both are trained.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        masked: The share of the positions, or channels, that is masked, in [0, 1).
        mask: "positions", for dense prediction, or "channels", for classification.

    Transfers: a feature map, generated from a part of the student's.
    Use: dense prediction, detection and segmentation, and classification; it trains a small network beside the student.
    Source: Yang et al.: Masked Generative Distillation, ECCV 2022, arXiv:2205.01529; recommended share 0.65 for
        detectors and 0.75 for segmentation, with weight 2e-5 of the sum over elements; 0.15 of the channels and
        7e-5 for classification.
    """

    def __init__(
        self, student_channels: int, teacher_channels: int, *, masked: float = 0.65, mask: Mask = "positions"
    ) -> None:
        super().__init__()
        if not 0 <= masked < 1:
            raise RequestError(f"masked is a share from 0 to below 1, not {masked}")
        if mask not in get_args(Mask):
            raise RequestError(f"mask is 'positions' or 'channels', not {mask!r}")
        width = teacher_channels
        self.masked, self.mask = masked, mask
        self.align = nn.Identity() if student_channels == width else nn.Conv2d(student_channels, width, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    @classmethod
    def for_shapes(
        cls, student: Sequence[int], teacher: Sequence[int], *, masked: float = 0.65, mask: Mask = "positions"
    ) -> MGD:
        """One for tensors of these shapes, (B, C, H, W) or (B, D)."""
        return cls(*channels(student, teacher), masked=masked, mask=mask)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of (B, C_s, H_s, W_s) against (B, C_t, H_t, W_t), the larger map pooled: (B,) values ≥ 0.

        Raises:
            RequestError: Not two maps (or vectors) of one batch.
        """
        f_s, f_t = as_maps(student, teacher)
        aligned = f_s if isinstance(self.align, nn.Identity) else run_layer(self.align, f_s)
        if self.training:
            one = aligned[:, :1] if self.mask == "positions" else aligned[:, :, :1, :1]
            shown = torch.rand_like(one) >= self.masked
            aligned = aligned * shown
        return mean_square(run_layer(self.generate, aligned), f_t)
