"""Losses that know of the ReLU behind the features: AB and OFD. Their taps are before the ReLU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import same_shape, several_samples
from limbeck.types import send

_NEAR, _FAR, _TERMS = 4.0, 1e18, 30
"""Where μ/σ counts as large and as infinite, and the terms that its continued fraction then needs."""


@full_precision
def activation_boundary(
    student: Tensor, teacher: Tensor, *, margin: float = 1.0, tokens: Tensor | None = None
) -> Tensor:
    """Activation boundaries: mean of max(0, μ − f_s)² where f_t > 0, and of max(0, μ + f_s)² elsewhere.

    Args:
        student: (B, ...) pre-activations.
        teacher: (B, ...) pre-activations of the same shape; only their signs count.
        margin: μ, how far beyond the boundary the student must be.
        tokens: Where both hold tokens of texts and no padding, as booleans that broadcast over them; None everywhere.
            A term gives it.

    Returns:
        (B,) values ≥ 0, 0 where the student is on the teacher's side by the margin everywhere.

    Raises:
        RequestError: The shapes differ.

    Transfers: which neurons are active, not how much.
    Use: networks of ReLUs, tapped before the ReLU, to start the student before it learns its task.
    Source: Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries, AAAI 2019,
        arXiv:1811.03233; recommended weight 3e-3 of the sum over elements, half for each earlier stage, in a stage of
        its own before training.
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    with torch.no_grad():
        # Where the student is beyond the margin already, it is its own goal.
        goal = torch.where(teacher > 0, student.clamp(min=margin), student.clamp(max=-margin))
    return mean_square(student, goal, tokens)


@full_precision
def margin_relu(student: Tensor, teacher: Tensor, *, margin: float | Tensor | None = None) -> Tensor:
    """Feature overhaul (OFD): mean of d(max(f_t, m), f_s), d(t, s) = 0 where s ≤ t ≤ 0, else (t − s)².

    m < 0 is the teacher's mean negative response in each channel: where the teacher is below, it is enough
    that the student is not above.

    Args:
        student: (B, C, ...) pre-activations.
        teacher: (B, C, ...) pre-activations of the same shape.
        margin: m, one value or (C,) values, such as `negative_mean` of the batch norm before the ReLU;
            None takes the mean of the negative responses in this batch.

    Returns:
        (B,) values ≥ 0, 0 where the student equals the teacher.

    Raises:
        RequestError: The shapes differ, or the margins are not (C,).

    Transfers: the positive responses, and that the others are negative.
    Use: convolutional networks with ReLUs, tapped before the last one of each stage; also for detection and
        segmentation.
    Source: Heo et al.: A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv:1904.01866;
        recommended weight 1e-3 of the sum over elements, half for each earlier stage.
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    m = _channel_margin(teacher, margin)
    target = torch.maximum(teacher, m)
    counts = (student > target) | (target > 0)
    # Where nothing counts, the student is its own goal.
    return mean_square(student, target.where(counts, student.detach()))


@full_precision
def negative_mean(mean: Tensor, std: Tensor) -> Tensor:
    """E[x | x < 0] = μ − σ φ(μ/σ) / Φ(−μ/σ) of normal responses: the margin of `margin_relu`.

    The authors' code takes −3σ where less than 0.1 % of the responses are negative; here the formula holds for all.

    Args:
        mean: (C,) μ, the bias of the batch norm before the ReLU.
        std: (C,) σ, the size of its weight.

    Returns:
        (C,) values < 0, next to 0 where hardly any response is negative.

    Raises:
        RequestError: The shapes differ.

    Source: Heo et al., ICCV 2019, arXiv:1904.01866.
    """
    same_shape(mean, std, "a mean and a deviation for each channel")
    sigma = std.abs().clamp(min=torch.finfo(std.dtype).tiny)
    z = (mean / sigma).clamp(min=-_FAR, max=_FAR)
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(z.clamp(max=_NEAR) / math.sqrt(2))
    expected: Tensor = torch.where(z < _NEAR, mean - sigma * hazard, -sigma * _excess(z.clamp(min=_NEAR)))
    return expected.clamp(max=-torch.finfo(std.dtype).tiny)


def _excess(z: Tensor) -> Tensor:
    """φ(z)/Φ(−z) − z for z ≥ 4 as 1/(z + 2/(z + 3/(z + …))): the difference itself would be lost in rounding."""
    below = z
    for k in range(_TERMS, 1, -1):
        below = z + k / below
    return 1 / below


def _channel_margin(teacher: Tensor, margin: float | Tensor | None) -> Tensor:
    """m as a tensor that broadcasts over (B, C, ...)."""
    along_channels = (1, -1) + (1,) * (teacher.dim() - 2)
    if margin is None:
        x = teacher.detach().transpose(0, 1).flatten(1)
        mean = x.clamp(max=0).sum(1) / (x < 0).sum(1).clamp(min=1)
        return mean.reshape(along_channels)
    m = send(torch.as_tensor(margin, dtype=teacher.dtype), teacher.device)
    if m.dim() > 1 or (m.dim() == 1 and len(m) != teacher.shape[1]):
        raise RequestError(f"margin {tuple(m.shape)} must be one value a channel of {tuple(teacher.shape)}")
    return m.reshape(along_channels)
