"""A teacher's answer as some classes drawn from its distribution: sparse, and right in expectation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import Average, over_positions


class Sampled(NamedTuple):
    """K draws from each of a teacher's distributions, at temperature 1: p ≈ Σ weight · (1 at the index).

    Classes lie where the logits have theirs: (B, K), (B, L, K) or (B, K, H, W). A class may be drawn several times.

    Attributes:
        weights: 1/K where the draws are from p itself; from another distribution q they are p / (K q), so that the sum
            above has the expectation p.
        indices: The classes that were drawn.
    """

    weights: Tensor
    indices: Tensor


def of_draws(
    student: Tensor,
    teacher: Sampled,
    *,
    divergence: bool,
    temperature: float,
    teacher_temperature: float | None,
    standardize: bool,
    targets: Tensor | None,
    ignore_index: int | None,
    chunk: int | None,
    average: Average,
) -> Tensor:
    """(B,) −Σ weight · log p_s over the draws; the KL from what was drawn, with `divergence`, of the same gradient.

    Raises:
        RequestError: The shapes differ, or an option needs more of the teacher than its draws.
    """
    if temperature != 1 or teacher_temperature not in (None, 1) or standardize:
        raise RequestError(
            "a sampled teacher was drawn at temperature 1: set temperature: 1, without another for the teacher and "
            "without standardize, or store it with codec: topk"
        )
    distance = partial(_distance, divergence=divergence)
    return over_positions(
        distance, student, teacher, targets=targets, ignore_index=ignore_index, chunk=chunk, average=average
    )


@full_precision
def _distance(student: Tensor, weights: Tensor, indices: Tensor, *, divergence: bool) -> Tensor:
    log_s = student.gather(-1, indices) - student.logsumexp(-1, keepdim=True)
    if not divergence:
        return -(weights * log_s).sum(-1)
    return (weights * (_log_drawn(weights, indices) - log_s)).sum(-1)


def _log_drawn(weights: Tensor, indices: Tensor) -> Tensor:
    """log q̂ of each draw's class: the weights of all draws of that class, added up."""
    same = indices.unsqueeze(-1) == indices.unsqueeze(-2)
    return torch.where(same, weights.unsqueeze(-2), 0.0).sum(-1).log()
