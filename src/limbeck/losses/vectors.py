"""Directions of vectors, for losses that compare angles and correlations."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """x / ‖x‖₂ along `dim`; a vector of no length stays zero and passes no gradient.

    The usual x / max(‖x‖, ε) has a gradient of 1/ε there, which a dead channel or a constant row would meet.
    """
    return x / length(x, dim)


def length(x: Tensor, dim: int = -1) -> Tensor:
    """‖x‖₂ along `dim`, which stays as 1; infinite where x is zero, or too small to be squared."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return norm.masked_fill(norm <= _too_small(x), math.inf)


def uncorrelated(student: Tensor, teacher: Tensor, dim: int = -1) -> Tensor:
    """1 − ρ, ρ = Pearson's correlation along `dim`; two constant vectors agree, and one with another has ρ = 0."""
    (s, length_s), (t, length_t) = _centred(student, dim), _centred(teacher, dim)
    rho = (s * t).sum(dim, keepdim=True) / length_s / length_t
    both_constant = length_s.isinf() & length_t.isinf()
    return (1 - rho).masked_fill(both_constant, 0.0).squeeze(dim)


def _centred(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x − mean, and its length; that is infinite where x is constant but for rounding."""
    mean = x.mean(dim, keepdim=True)
    off = x - mean
    norm: Tensor = torch.linalg.vector_norm(off, dim=dim, keepdim=True)
    rounding = 4 * torch.finfo(x.dtype).eps * x.shape[dim] ** 0.5
    constant = norm <= (mean.detach().abs() * rounding).clamp(min=_too_small(x))
    return off, norm.masked_fill(constant, math.inf)


def _too_small(x: Tensor) -> float:
    """The length whose square is the least normal number."""
    return math.sqrt(torch.finfo(x.dtype).tiny)
