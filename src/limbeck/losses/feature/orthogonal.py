"""Features compared through an orthogonal projection: VkD."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import by_sample
from limbeck.losses.shapes import channels, several_samples


class VkD(nn.Module):
    """Orthogonal projection: mean of d(P f_s − LN(f_t)), d(x) = x²/2 where |x| < 1, else |x| − 1/2, PᵀP = 1.

    LN standardises a sample's features (layer norm without weights). P is trained, and stays orthogonal: it is
    exp(A) times a random orthogonal matrix, A skew-symmetric with one number for each pair of features. It keeps all
    distances between the student's features, so that none of the teacher's knowledge ends in the projection. Where
    the student's are more, P Pᵀ = 1.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.

    Transfers: the features before the classifier, up to a rotation.
    Use: teacher and student of any two architectures, also transformers taught by convolutional networks; no labels.
    Source: Miles, Elezi, Deng: VkD: Improving Knowledge Distillation using Orthogonal Projections, CVPR 2024,
        arXiv:2403.06213; recommended weight 1 beside `kd` at T 1.
    """

    start: Tensor

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        many, few = max(student_channels, teacher_channels), min(student_channels, teacher_channels)
        start = torch.linalg.qr(torch.randn(many, few))[0]
        self.register_buffer("start", start if teacher_channels == many else start.T.contiguous())
        self.below = nn.Parameter(torch.zeros(many, many))

    @classmethod
    def for_shapes(cls, student: Sequence[int], teacher: Sequence[int]) -> VkD:
        """One for features of these shapes, (B, D) or (B, C, ...)."""
        return cls(*channels(student, teacher))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of (B, C_s, ...) against (B, C_t, ...) features, averaged over positions: (B,) values ≥ 0.

        Raises:
            RequestError: The batch sizes differ, or the channels are others than the loss was made for.
        """
        several_samples(student, teacher)
        wanted = self.start.shape[::-1]
        if (student.shape[1], teacher.shape[1]) != tuple(wanted):
            raise RequestError(
                f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have {wanted[0]} and "
                f"{wanted[1]} channels, for which this loss was made"
            )
        f_s, f_t = (f.flatten(2).mean(2) if f.dim() > 2 else f for f in (student, teacher))
        target = F.layer_norm(f_t, f_t.shape[1:])
        return by_sample(F.smooth_l1_loss(f_s @ self.projection(f_s.dtype).T, target, reduction="none"))

    def projection(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """P, (C_t, C_s)."""
        below, start = self.below.to(dtype).tril(-1), self.start.to(dtype)
        turn: Tensor = torch.linalg.matrix_exp(below - below.T)
        return turn @ start if len(start) == len(turn) else start @ turn
