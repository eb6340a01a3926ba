"""Knowledge distillation at a temperature that is learned against the student: CTKD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import CLASSES
from limbeck.losses.response.softened import expected
from limbeck.losses.shapes import agree


class CTKD(nn.Module):
    """Curriculum temperature: T² · KL(p_t ‖ p_s) at T = T₀ + S · sigmoid(θ), where θ is trained to raise it.

    θ is one number, which starts at 1 and is trained with the student by the same optimizer. Its gradient is the
    loss's times −λ: it makes the task harder, from λ = (1 − cos(π/N))/2 in the first epoch to 1 in epoch number N.

    Args:
        least: T₀ > 0.
        span: S ≥ 0.
        epochs: N, the length of the curriculum.

    Transfers: the probabilities of all classes, at a temperature that grows hard for the student.
    Use: in place of `kd` where no temperature is to be chosen; no labels.
    Source: Li et al.: Curriculum Temperature for Knowledge Distillation, AAAI 2023, arXiv:2211.16231, its global
        version; recommended weight 0.9 beside 0.1 of the task loss.
    """

    def __init__(self, *, least: float = 1.0, span: float = 20.0, epochs: int = 10) -> None:
        super().__init__()
        if not least > 0 or not span >= 0 or epochs < 1:
            raise RequestError(
                f"CTKD needs least above 0, a span of 0 or more and 1 epoch at least, not {least}, {span}, {epochs}"
            )
        self.least, self.span, self.epochs = least, span, epochs
        self.theta = nn.Parameter(torch.ones(()))

    @classmethod
    def for_shapes(
        cls,
        student: Sequence[int],
        teacher: Sequence[int],
        *,
        least: float = 1.0,
        span: float = 20.0,
        epochs: int = 10,
    ) -> CTKD:
        """One for logits; nothing in it depends on their shapes."""
        return cls(least=least, span=span, epochs=epochs)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, epoch: int) -> Tensor:
        """The loss of (B, C) logits against (B, C) logits: (B,) values ≥ 0, 0 where both distributions agree.

        Args:
            student: Logits of the student.
            teacher: Logits of the teacher.
            epoch: Number of the epoch, from 0.

        Raises:
            RequestError: The shapes differ.
        """
        agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
        temperature = self.least + self.span * self._reversed(epoch).to(student.dtype).sigmoid()
        log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher))
        return expected(log_t.exp(), log_t - log_s) * temperature.square()

    def _reversed(self, epoch: int) -> Tensor:
        """θ, whose gradient is multiplied by −λ."""
        strength = (1 - math.cos(math.pi * min(epoch + 1, self.epochs) / self.epochs)) / 2
        return self.theta.detach() * (1 + strength) - self.theta * strength
