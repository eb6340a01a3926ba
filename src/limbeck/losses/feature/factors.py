"""Factor transfer: the loss on given factors, and the networks that make them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.maps import as_maps
from limbeck.losses.precision import full_precision, run_layer
from limbeck.losses.samples import by_sample, mean_square
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
        NeurIPS 2018, arXiv:1802.04977; customary weight 200.
    """
    several_samples(student, teacher)
    f_s, f_t = student.flatten(1), teacher.flatten(1)
    same_shape(f_s, f_t)
    return by_sample((unit(f_s) - unit(f_t)).abs())


class FactorTransfer(nn.Module):
    """Factor transfer: `factor(translator(f_s), F_t)` + w · mean of (decode(F_t) − f_t)², F_t = encode(f_t).

    The paraphraser of the teacher (encode, decode) and the translator of the student are trained together. The
    paper trains the paraphraser by itself first; here its reconstruction is a part of the loss, and the factors
    that the student is to match carry no gradient: it learns to reconstruct only.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        rate: The paraphraser makes rate · C_t factors.
        reconstruction_weight: w; 0 leaves the paraphraser as it was initialised or loaded.

    Transfers: the teacher's last map, paraphrased so that a student of another form can read it.
    Use: convolutional networks of different width or architecture; it trains small networks beside the student.
    Source: Kim, Park, Kwak, NeurIPS 2018, arXiv:1802.04977; customary rate 0.5, weight 200.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        rate: float = 0.5,
        reconstruction_weight: float = 1.0,
    ) -> None:
        super().__init__()
        factors = int(rate * teacher_channels)
        if factors < 1:
            raise RequestError(f"rate {rate} leaves no factor of {teacher_channels} channels")
        wide = teacher_channels
        self.encode = _convolutions(wide, wide, factors, factors)
        self.decode = _convolutions(factors, factors, wide, wide)
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
    ) -> FactorTransfer:
        """One for tensors of these shapes, (B, C, H, W) or (B, D)."""
        return cls(*channels(student, teacher), rate=rate, reconstruction_weight=reconstruction_weight)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of (B, C_s, H_s, W_s) against (B, C_t, H_t, W_t), the larger map pooled: (B,) values ≥ 0.

        Raises:
            RequestError: Not two maps (or vectors) of one batch.
        """
        f_s, f_t = as_maps(student, teacher)
        factors = run_layer(self.encode, f_t)
        loss = factor(run_layer(self.translator, f_s), factors.detach())
        reconstruction = mean_square(run_layer(self.decode, factors), f_t)
        return loss + self.reconstruction_weight * reconstruction


def _convolutions(*widths: int) -> nn.Sequential:
    """3×3 convolutions of these widths, a leaky ReLU after each."""
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)
