"""From logits to log-probabilities at a temperature, for the divergences between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import Distance
from limbeck.losses.response.sparse import TopK, bucket, gather_bucket, spread
from limbeck.losses.response.standardization import standardize as standardized

Rest = Literal["bucket", "spread"]
"""What becomes of the mass that a top-k teacher does not name: one class of its own, or shared out evenly."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(log p_s, log p_t), each (..., C) → (...)."""


def softened(
    divergence: Divergence,
    teacher: Tensor | TopK,
    *,
    temperature: float,
    scale: bool,
    standardize: bool,
    rest: Rest,
    teacher_temperature: float | None = None,
) -> Distance:
    """The distance of logits: T² · divergence at temperature T; T · T_t · divergence with another one, T_t, for p_t."""
    of_teacher = temperature if teacher_temperature is None else teacher_temperature
    positive(temperature)
    positive(of_teacher)
    if rest not in ("bucket", "spread"):
        raise RequestError(f"rest is 'bucket' or 'spread', not {rest!r}")
    if standardize and isinstance(teacher, TopK):
        raise RequestError("standardize needs all logits of the teacher; a top-k teacher has only its best")
    factor = temperature * of_teacher if scale else 1.0

    def dense(student: Tensor, teacher: Tensor) -> Tensor:
        if standardize:
            student, teacher = standardized(student), standardized(teacher)
        log_s, log_t = _log_softmax(student / temperature), _log_softmax(teacher / of_teacher)
        return divergence(log_s, log_t) * factor

    def sparse(student: Tensor, log_probs: Tensor, indices: Tensor) -> Tensor:
        classes, softer = student.shape[-1], student / temperature
        if rest == "spread":
            log_s, log_t = _log_softmax(softer), spread(log_probs, indices, classes, of_teacher)
        else:
            log_s, log_t = gather_bucket(softer, indices), bucket(log_probs, classes, of_teacher)
        return divergence(log_s, log_t) * factor

    return full_precision(sparse if isinstance(teacher, TopK) else dense)


def positive(temperature: float) -> None:
    """Raise RequestError unless a temperature is one."""
    if not temperature > 0:
        raise RequestError(f"temperature must be above 0, not {temperature}")


def _log_softmax(x: Tensor) -> Tensor:
    """Over the last dimension, in the order of x in memory: a view of a (B, C, H, W) map is not copied."""
    if x.stride(-1) == 1:
        return F.log_softmax(x, dim=-1)
    return F.log_softmax(x.mT, dim=-2).mT
