"""Divergences against a mixture of both distributions, and total variation: bounded where one side is certain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import sees_to_it
from limbeck.losses.response.divergence import backward_kl, forward_kl
from limbeck.losses.response.positions import Average
from limbeck.losses.response.softened import Divergence, Rest, compare, expected
from limbeck.losses.response.sparse import TopK


@sees_to_it
def jsd(
    student: Tensor,
    teacher: Tensor | TopK,
    *,
    beta: float = 0.5,
    temperature: float = 4.0,
    teacher_temperature: float | None = None,
    scale: bool = True,
    standardize: bool = False,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    chunk: int | None = None,
    rest: Rest = "bucket",
    average: Average = "samples",
) -> Tensor:
    """Generalised Jensen-Shannon: T² · [β KL(p_t ‖ m) + (1 − β) KL(p_s ‖ m)], m = β p_t + (1 − β) p_s.

    By the field's convention β = 0 is the forward KL and β = 1 the reverse; the formula itself is 0 there.

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape, or a `TopK`.
        beta: β in [0, 1].
        temperature: T > 0 divides both logits.
        teacher_temperature: As in `kd`; the factor is then T · T_t.
        scale: Multiply by T².
        standardize: As in `kd`, like the options that follow.
        targets: Labels that show the positions to ignore.
        ignore_index: The target of such positions.
        chunk: Rows at a time.
        rest: "bucket" or "spread" for a `TopK`.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values ≥ 0, 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: the probabilities of all classes, between covering all modes (β = 0) and seeking some (β = 1).
    Use: language models, where the best divergence depends on the task: β is chosen on a validation split; no labels.
    Source: Agarwal et al.: On-Policy Distillation of Language Models, ICLR 2024, arXiv:2306.13649.
    """
    return compare(
        _mixed(beta),
        student,
        teacher,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        scale=scale,
        standardize=standardize,
        targets=targets,
        ignore_index=ignore_index,
        chunk=chunk,
        rest=rest,
        average=average,
    )


@sees_to_it
def skewed_kl(
    student: Tensor,
    teacher: Tensor | TopK,
    *,
    alpha: float = 0.1,
    reverse: bool = False,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    scale: bool = True,
    standardize: bool = False,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    chunk: int | None = None,
    rest: Rest = "bucket",
    average: Average = "samples",
) -> Tensor:
    """Skewed divergence: T² · KL(p_t ‖ α p_t + (1 − α) p_s), or reversed T² · KL(p_s ‖ (1 − α) p_t + α p_s).

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape, or a `TopK`.
        alpha: α in [0, 1): 0 is the KL itself, forward or reverse.
        reverse: Take the second form.
        temperature: T > 0 divides both logits.
        teacher_temperature: As in `kd`; the factor is then T · T_t.
        scale: Multiply by T².
        standardize: As in `kd`, like the options that follow.
        targets: Labels that show the positions to ignore.
        ignore_index: The target of such positions.
        chunk: Rows at a time.
        rest: "bucket" or "spread" for a `TopK`.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values ≥ 0, 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: the probabilities of all classes, with a gradient that stays bounded where the student gives none.
    Use: language models, from the first step on, where a KL's gradient is largest and noisiest; no labels.
    Source: Ko et al.: DistiLLM, ICML 2024, arXiv:2402.03898; α = 0.1 at T = 1 there.
    """
    return compare(
        _skewed(alpha, reverse),
        student,
        teacher,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        scale=scale,
        standardize=standardize,
        targets=targets,
        ignore_index=ignore_index,
        chunk=chunk,
        rest=rest,
        average=average,
    )


@sees_to_it
def total_variation(
    student: Tensor,
    teacher: Tensor | TopK,
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    scale: bool = True,
    standardize: bool = False,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    chunk: int | None = None,
    rest: Rest = "bucket",
    average: Average = "samples",
) -> Tensor:
    """Total variation distance: T² · ½ Σ |p_t − p_s|, the largest difference of any event's probability at T = 1.

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape, or a `TopK`.
        temperature: T > 0 divides both logits.
        teacher_temperature: As in `kd`; the factor is then T · T_t.
        scale: Multiply by T².
        standardize: As in `kd`, like the options that follow.
        targets: Labels that show the positions to ignore.
        ignore_index: The target of such positions.
        chunk: Rows at a time.
        rest: "bucket" or "spread" for a `TopK`.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values between 0 and T², 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: the probabilities of all classes; each counts by its difference, however small it is itself.
    Use: language models whose teacher is often nearly certain; no labels. Its gradient vanishes where the student is
        certain of something else, so that it is for a student that is trained already.
    Source: Wen et al.: f-Divergence Minimization for Sequence-Level Knowledge Distillation, ACL 2023, arXiv:2307.15190.
    """
    return compare(
        _half_difference,
        student,
        teacher,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        scale=scale,
        standardize=standardize,
        targets=targets,
        ignore_index=ignore_index,
        chunk=chunk,
        rest=rest,
        average=average,
    )


def _mixed(beta: float) -> Divergence:
    if not 0 <= beta <= 1:
        raise RequestError(f"beta is between 0 (forward KL) and 1 (reverse KL), not {beta}")
    if beta in (0, 1):
        return backward_kl if beta else forward_kl

    def jensen_shannon(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
        # As no term of it can be infinite, a masked class needs no more than a logarithm that is finite.
        least = torch.finfo(log_s.dtype).min / 4
        log_s, log_t = log_s.clamp(min=least), log_t.clamp(min=least)
        log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log(1 - beta))
        of_teacher = (log_t.exp() * (beta * factor) * (log_t - log_m)).sum(-1)
        return of_teacher.add((log_s.exp() * (log_s - log_m)).sum(-1), alpha=(1 - beta) * factor)

    return jensen_shannon


def _skewed(alpha: float, reverse: bool) -> Divergence:
    if not 0 <= alpha < 1:
        raise RequestError(f"alpha is 0 or more and below 1, not {alpha}")

    def divergence(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
        log_p, log_q = (log_s, log_t) if reverse else (log_t, log_s)
        if not alpha:
            return expected(log_p.exp(), log_p - log_q, factor)
        # With a part of p in it, the mixture covers p: a masked class needs no more than a logarithm that is finite.
        least = torch.finfo(log_p.dtype).min / 4
        log_p, log_q = log_p.clamp(min=least), log_q.clamp(min=least)
        log_mixed = torch.logaddexp(log_p + math.log(alpha), log_q + math.log1p(-alpha))
        return (log_p.exp() * (log_p - log_mixed)).sum(-1) * factor

    return divergence


def _half_difference(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
    return (log_t.exp() - log_s.exp()).abs().sum(-1) * (factor / 2)
