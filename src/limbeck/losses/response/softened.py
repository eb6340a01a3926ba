"""From logits to log-probabilities at a temperature, for the divergences between them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.looks import can_look
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import Average, over_positions
from limbeck.losses.response.sampled import Sampled
from limbeck.losses.response.sparse import TopK, bucket, gather_bucket, spread
from limbeck.losses.response.standardization import standardize as standardized
from limbeck.losses.shapes import check_temperature

Rest = Literal["bucket", "spread"]
"""What becomes of the mass that a top-k teacher does not name: one class of its own, or shared out evenly."""

Divergence = Callable[[Tensor, Tensor, float], Tensor]
"""(log p_s, log p_t, factor), each (..., C) → (...), times the factor."""
Temperatures = tuple[float, float]
"""Of the student and of the teacher."""


def compare(
    divergence: Divergence,
    student: Tensor,
    teacher: Tensor | TopK,
    *,
    temperature: float,
    scale: bool,
    standardize: bool,
    targets: Tensor | None,
    ignore_index: int | None,
    chunk: int | None,
    rest: Rest,
    teacher_temperature: float | None,
    average: Average,
) -> Tensor:
    """The mean divergence over each sample's, or the batch's, positions, (B,): T² times that at temperature T.

    With another temperature T_t for the teacher's distribution it is T · T_t times.

    Raises:
        RequestError: The shapes differ, or an option does not fit.
    """
    of_teacher = temperature if teacher_temperature is None else teacher_temperature
    check_temperature(temperature)
    check_temperature(of_teacher)
    if isinstance(teacher, Sampled):
        raise RequestError(
            "a sampled teacher is right in expectation for kd and soft_cross_entropy alone; choose one of them, or "
            "store it with codec: topk"
        )
    if rest not in ("bucket", "spread"):
        raise RequestError(f"rest is 'bucket' or 'spread', not {rest!r}")
    factor = temperature * of_teacher if scale else 1.0
    at = (temperature, of_teacher)
    if isinstance(teacher, TopK):
        if standardize:
            raise RequestError("standardize needs all logits of the teacher; a top-k teacher has only its best")
        distance = partial(_sparse, divergence=divergence, at=at, factor=factor, rest=rest)
    else:
        distance = partial(_dense, divergence=divergence, at=at, factor=factor, standardize=standardize)
    return over_positions(
        distance, student, teacher, targets=targets, ignore_index=ignore_index, chunk=chunk, average=average
    )


@full_precision
def _dense(
    student: Tensor, teacher: Tensor, *, divergence: Divergence, at: Temperatures, factor: float, standardize: bool
) -> Tensor:
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    return divergence(log_softmax(student, at[0]), log_softmax(teacher, at[1]), factor)


@full_precision
def _sparse(
    student: Tensor,
    log_probs: Tensor,
    indices: Tensor,
    *,
    divergence: Divergence,
    at: Temperatures,
    factor: float,
    rest: Rest,
) -> Tensor:
    classes = student.shape[-1]
    if rest == "spread":
        log_s, log_t = log_softmax(student, at[0]), spread(log_probs, indices, classes, at[1])
    else:
        log_s, log_t = gather_bucket(softer(student, at[0]), indices), bucket(log_probs, classes, at[1])
    return divergence(log_s, log_t, factor)


def softer(logits: Tensor, temperature: float) -> Tensor:
    """logits / T, the logits themselves at T = 1."""
    return times(logits, 1 / temperature)  # a product with a number costs less than a quotient


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Of logits / T over the last dimension, in their order in memory: a view of a (B, C, H, W) map is not copied."""
    x = softer(logits, temperature)
    return F.log_softmax(x, dim=-1) if x.stride(-1) == 1 else F.log_softmax(x.mT, dim=-2).mT


def expected(p: Tensor, values: Tensor, factor: float = 1.0) -> Tensor:
    """factor · Σ p · values over the last dimension; where p = 0 it counts 0, though the value be infinite."""
    if not (can_look(p) and p.min().item() > 0):
        values = values.masked_fill(p == 0, 0.0)
    # Where p is the teacher's, the factor has no part in the backward pass.
    return (times(p, factor) * values).sum(-1)


def times(x: Tensor, factor: float) -> Tensor:
    """factor · x, x itself where the factor is 1."""
    return x if factor == 1 else x * factor
