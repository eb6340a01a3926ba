"""A teacher's answer as some classes drawn from its distribution: sparse, and right in expectation."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import Average, over_positions
from limbeck.losses.response.some_classes import log_probs_of


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
    check_drawn(temperature, teacher_temperature, standardize)
    distance = partial(_distance, divergence=divergence)
    return over_positions(
        distance, student, teacher, targets=targets, ignore_index=ignore_index, chunk=chunk, average=average
    )


def check_drawn(temperature: float, teacher_temperature: float | None, standardize: bool) -> None:
    """Raise RequestError for options that need more of a teacher than what was drawn."""
    if temperature != 1 or teacher_temperature not in (None, 1) or standardize:
        raise RequestError(
            "a sampled teacher was drawn at temperature 1: set temperature: 1, without another for the teacher and "
            "without standardize, or store it with codec: topk"
        )


def value_of_draws(log_s: Tensor, weights: Tensor, indices: Tensor, *, divergence: bool) -> Tensor:
    """(...) values of (..., K) log-probabilities of the student at the draws."""
    crossed = -(weights * log_s).sum(-1)
    return crossed - _entropy(weights, indices) if divergence else crossed


@full_precision
def _distance(student: Tensor, weights: Tensor, indices: Tensor, *, divergence: bool) -> Tensor:
    return value_of_draws(log_probs_of(student, indices), weights, indices, divergence=divergence)


def _entropy(weights: Tensor, indices: Tensor) -> Tensor:
    """−Σ weight · log q̂ over the draws; q̂ of a class is the sum of the weights of its draws."""
    drawn, order = indices.sort(-1)
    weights = weights.gather(-1, order)
    number = torch.zeros_like(drawn)
    number[..., 1:] = (drawn[..., 1:] != drawn[..., :-1]).cumsum(-1)  # which of the classes that were drawn
    together = torch.zeros_like(weights).scatter_add_(-1, number, weights)
    return -(weights * together.gather(-1, number).log()).sum(-1)
