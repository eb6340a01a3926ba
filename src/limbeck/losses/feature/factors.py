"""Factor transfer: the loss on given factors, and the networks that make them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.maps import as_maps
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.samples import by_sample
from limbeck.losses.shapes import channels, same_shape, several_samples
from limbeck.losses.vectors import unit


@full_precision
def factor(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of |F̂_s − F̂_t|, F̂ = F/‖F‖₂ the factors of a sample as one vector.

    Args:
        student: (B, ...) factors, as a translator makes them.
        teacher: (B, ...) factors with as many elements, as a paraphraser makes them.

    Returns:
        (B,) values ≥ 0, 0 for the same direction.

    Raises:
        RequestError: The numbers of elements differ.

    Transfers: given factors of the teacher's map, up to scale.
    Use: where paraphraser and translator are your own; `FactorTransfer` trains both.
    Source: Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer,
        NeurIPS 2018, arXiv:1802.04977; recommended weight 500, of the mean over elements.
    """
    several_samples(student, teacher)
    f_s, f_t = student.flatten(1), teacher.flatten(1)
    same_shape(f_s, f_t)
    return by_sample((unit(f_s) - unit(f_t)).abs())


class Paraphraser(nn.Module):
    """Paraphraser: mean of |decode(F) − f_t| over all but the batch, F = encode(f_t) the factors of the teacher's map.

    Three 3×3 convolutions make the factors, and three make the map of them again. It is trained before the student, by
    a term of its own, `Term(losses.Paraphraser, student=(), teacher=TAP)`, which reads no tensor of the student;
    `FactorTransfer` then takes it as it is.

    Args:
        channels: C_t.
        rate: It makes rate · C_t factors.

    Transfers: nothing to the student: it learns to say the teacher's map in fewer channels.
    Use: before `FactorTransfer`, whose factors it makes.
    Source: Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer,
        NeurIPS 2018, arXiv:1802.04977; absolute differences as in the authors' code, where the paper has squares;
        recommended rate 0.5, weight 1, 6 epochs before the student's.
    """

    def __init__(self, channels: int, *, rate: float = 0.5) -> None:
        super().__init__()
        factors = int(rate * channels)
        if factors < 1:
            raise RequestError(f"rate {rate} leaves no factor of {channels} channels")
        self.factors = factors
        self.encode = _convolutions(channels, channels, factors, factors)
        self.decode = _convolutions(factors, factors, channels, channels)

    @classmethod
    def for_shapes(cls, student: Any, teacher: Sequence[int], *, rate: float = 0.5) -> Paraphraser:
        """One for the teacher's tensor of this shape, (B, C, H, W) or (B, D)."""
        return cls(channels(teacher, teacher)[1], rate=rate)

    @full_precision
    def forward(self, student: Any, teacher: Tensor) -> Tensor:
        """The reconstruction's distance to (B, C_t, H, W), whatever the student's tensor: (B,) values ≥ 0.

        Raises:
            RequestError: No map or vector.
        """
        _, f_t = as_maps(teacher, teacher)
        return self.reconstruction(run_layer(self.encode, f_t), f_t)

    def reconstruction(self, factors: Tensor, teacher: Tensor) -> Tensor:
        """(B,) mean of |decode(factors) − f_t|."""
        return by_sample((run_layer(self.decode, factors) - teacher).abs())


class FactorTransfer(nn.Module):
    """Factor transfer: `factor(translator(f_s), F_t)`, F_t = encode(f_t) of a `Paraphraser`.

    As published the paraphraser is trained first and given here; it stays as it is. Without one, a paraphraser is
    trained beside the student: then + w/λ · its reconstruction is added, λ the term's own weight, so that its
    gradient is w times the reconstruction's whatever the term's weight is. The factors that the student is to match
    carry no gradient in either case.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        rate: The paraphraser makes rate · C_t factors; without a meaning where one is given.
        reconstruction_weight: w; 0 leaves the paraphraser as it was initialised or loaded.
        paraphraser: A trained one, which is copied.

    Transfers: the teacher's last map, paraphrased so that a student of another form can read it.
    Use: convolutional networks of different width or architecture; it trains small networks beside the student.
    Source: Kim, Park, Kwak, NeurIPS 2018, arXiv:1802.04977; recommended rate 0.5, weight 500.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        rate: float = 0.5,
        reconstruction_weight: float = 1.0,
        paraphraser: Paraphraser | None = None,
    ) -> None:
        super().__init__()
        self.trains = paraphraser is None and reconstruction_weight != 0
        if paraphraser is None:
            self.paraphraser = Paraphraser(teacher_channels, rate=rate)
        else:
            self.paraphraser = copy.deepcopy(paraphraser).requires_grad_(False)
        factors = self.paraphraser.factors
        self.translator = _convolutions(student_channels, student_channels, factors, factors)
        self.reconstruction_weight = reconstruction_weight

    @classmethod
    def for_shapes(
        cls,
        student: Sequence[int],
        teacher: Sequence[int],
        *,
        rate: float = 0.5,
        reconstruction_weight: float = 1.0,
        paraphraser: Paraphraser | None = None,
    ) -> FactorTransfer:
        """One for tensors of these shapes, (B, C, H, W) or (B, D)."""
        weight = reconstruction_weight
        both = channels(student, teacher)
        return cls(*both, rate=rate, reconstruction_weight=weight, paraphraser=paraphraser)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, term_weight: float = 1.0) -> Tensor:
        """The loss of (B, C_s, H_s, W_s) against (B, C_t, H_t, W_t), the larger map pooled: (B,) values ≥ 0.

        `term_weight` is λ, by which a term multiplies all of this; at λ = 0 nothing is reconstructed.

        Raises:
            RequestError: Not two maps (or vectors) of one batch.
        """
        f_s, f_t = as_maps(student, teacher)
        factors = run_layer(self.paraphraser.encode, f_t)
        loss = factor(run_layer(self.translator, f_s), factors.detach())
        if not (self.trains and term_weight):
            return loss
        return loss + (self.reconstruction_weight / term_weight) * self.paraphraser.reconstruction(factors, f_t)


def _convolutions(*widths: int) -> nn.Sequential:
    """3×3 convolutions of these widths, a leaky ReLU after each."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
