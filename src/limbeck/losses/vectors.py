"""Directions of vectors, for losses that compare angles and correlations."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.looks import can_look


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """x / ‖x‖₂ along `dim`; a vector of no length stays zero and passes no gradient.

    The usual x / max(‖x‖, ε) has a gradient of 1/ε there, which a dead channel or a constant row would meet.
    """
    return x / length(x, dim, keepdim=True)


def length(x: Tensor, dim: int = -1, *, keepdim: bool = False) -> Tensor:
    """‖x‖₂ along `dim`; infinite where x is zero, or too small to be squared."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    return F.threshold(norm, _too_small(x.dtype), math.inf)


def uncorrelated(
    student: Tensor, teacher: Tensor, dim: int = -1, *, largest: float | None = None, least: float = 0.0
) -> Tensor:
    """1 − ρ, ρ = Pearson's correlation along `dim`; two constant vectors agree, and one with another has ρ = 0.

    Args:
        student: Any shape.
        teacher: The same shape.
        dim: The dimension of the vectors.
        largest: What no value exceeds, such as 1 of probabilities; None looks.
        least: Added to the product of both lengths, so that vectors far below it count 1 and pass no gradient.
    """
    # ρ does not change with the means, so that they need not carry its gradient.
    mean_s, mean_t = (x.detach().mean(dim, keepdim=True) for x in (student, teacher))
    s, t = student - mean_s, teacher - mean_t
    length_s: Tensor = torch.linalg.vector_norm(s, dim=dim)
    length_t: Tensor = torch.linalg.vector_norm(t, dim=dim)
    product, lengths = (s * t).sum(dim), length_s * length_t
    lengths = lengths + least if least else lengths
    rounding = 4 * torch.finfo(lengths.dtype).eps * student.shape[dim] ** 0.5
    if _vary(length_s, mean_s, rounding, largest) and _vary(length_t, mean_t, rounding, largest):
        return 1 - product / lengths
    constant_s, constant_t = length_s <= _noise(mean_s, dim, rounding), length_t <= _noise(mean_t, dim, rounding)
    rho = product / lengths.masked_fill(constant_s | constant_t, math.inf)
    return (~(constant_s & constant_t)).to(rho.dtype) - rho


def _noise(mean: Tensor, dim: int, rounding: float) -> Tensor:
    """The length that rounding gives to a constant vector."""
    return (mean.abs() * rounding).clamp(min=_too_small(mean.dtype)).squeeze(dim)


def _vary(length: Tensor, mean: Tensor, rounding: float, largest: float | None) -> bool:
    """Whether surely none of the vectors is constant: the shortest is longer than the most that rounding gives."""
    if not can_look(length):
        return False
    largest = mean.abs().max().item() if largest is None else largest
    return length.min().item() > max(largest * rounding, _too_small(length.dtype))


@cache
def _too_small(dtype: torch.dtype) -> float:
    """The length whose square is the least normal number."""
    return math.sqrt(torch.finfo(dtype).tiny)
