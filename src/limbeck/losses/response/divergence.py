"""Divergences between the whole output distributions of teacher and student.

p = softmax(l / T), t = teacher, s = student. All take logits of classifiers (B, C), of language models
(B, L, C) and of segmentation (B, C, H, W), a dense or a top-k teacher, and return one value a sample, (B,).

A logit of −∞ masks its class: masked on both sides, it is as if the class were not there; masked by one only, it
costs what the formula says, which is ∞ where the other side gives it a probability that has to be covered. Only
`standardize` can do nothing with it, as such logits have no mean.
"""

from __future__ import annotations

from torch import Tensor

from limbeck.losses.precision import sees_to_it
from limbeck.losses.response.positions import Average
from limbeck.losses.response.sampled import Sampled, of_draws
from limbeck.losses.response.softened import Rest, compare, expected
from limbeck.losses.response.sparse import TopK


@sees_to_it
def kd(
    student: Tensor,
    teacher: Tensor | TopK | Sampled,
    *,
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
    """Knowledge distillation: T² · KL(p_t ‖ p_s) at temperature T.

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape, a `TopK` of log-probabilities at temperature 1, or a `Sampled`, at T = 1:
            what was drawn, of which the loss's gradient has the expectation of that by all logits.
        temperature: T > 0 divides both logits; higher is softer.
        teacher_temperature: T_t > 0 divides the teacher's logits instead; None takes T.
        scale: Multiply by T² (T · T_t), which keeps the gradient's size as T grows; False leaves it out.
        standardize: Standardise both logits first (arXiv:2403.01427).
        targets: (B,), (B, L) or (B, H, W) labels, read only to find the positions to ignore.
        ignore_index: Positions whose target is this value do not count; None counts all.
        chunk: Compute on so many rows at a time, without a full matrix in fp32; for large C.
        rest: The mass that a `TopK` does not name is one class more ("bucket") or spread evenly over the
            classes not named ("spread"). At T ≠ 1 both soften it as if it were spread.
        average: "samples" gives each sample the mean over its positions that count, so that short and long sequences
            weigh the same; "positions" gives each position of the batch the same weight, as torch's cross-entropy
            does: a sample's value is its sum times B / (positions of the batch that count).

    Returns:
        (B,) values ≥ 0, 0 where both distributions agree; their mean is the loss. With "positions" that is the mean
        over the batch's own positions, also where several batches make one step (`accumulate_steps`).

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: the probabilities of all classes, softened by the temperature.
    Use: the first method to try: it needs no more than logits over the same classes, whatever the two networks are; no
        labels. A very small student may need a lower T, down to 1.
    Source: Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531;
        recommended weight 0.9 beside 0.1 of the task loss.

    >>> import torch
    >>> kd(torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, 1.0]])).item()
    0.0
    """
    if isinstance(teacher, Sampled):
        return of_draws(
            student,
            teacher,
            divergence=True,
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            standardize=standardize,
            targets=targets,
            ignore_index=ignore_index,
            chunk=chunk,
            average=average,
        )
    return compare(
        forward_kl,
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
def soft_cross_entropy(
    student: Tensor,
    teacher: Tensor | TopK | Sampled,
    *,
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
    """Cross-entropy with the teacher's soft labels: −T² · Σ p_t log p_s at temperature T.

    Its gradient is that of `kd`; its minimum is T² · H(p_t), the teacher's entropy, not 0. With a temperature of its
    own, p_t = softmax(l_t / T_t), the factor is T · T_t.

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape, a `TopK`, or a `Sampled` at T = 1.
        temperature: T > 0 divides both logits.
        teacher_temperature: T_t > 0 divides the teacher's logits instead; None takes T.
        scale: Multiply by T · T_t.
        standardize: As in `kd`, like the options that follow.
        targets: Labels that show the positions to ignore.
        ignore_index: The target of such positions.
        chunk: Rows at a time.
        rest: "bucket" or "spread" for a `TopK`.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: the probabilities of all classes, softened by the temperature.
    Use: in place of `kd` where the loss itself is to be a cross-entropy; the gradient is the same.
    Source: Hinton, Vinyals, Dean, 2015, arXiv:1503.02531.
    """
    if isinstance(teacher, Sampled):
        return of_draws(
            student,
            teacher,
            divergence=False,
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            standardize=standardize,
            targets=targets,
            ignore_index=ignore_index,
            chunk=chunk,
            average=average,
        )
    return compare(
        _cross_entropy,
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


TAKING_DRAWS = ((kd, True), (soft_cross_entropy, False))
"""Losses that take a `Sampled`, and whether their value is a divergence."""


@sees_to_it
def reverse_kl(
    student: Tensor,
    teacher: Tensor | TopK,
    *,
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
    """Reverse divergence: T² · KL(p_s ‖ p_t); the student seeks the teacher's modes and may leave some out.

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
        (B,) values ≥ 0, 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or an option does not fit.

    Transfers: those of the teacher's likely answers that the student has room for.
    Use: language models, and other outputs with more modes than a small student can cover; no labels.
    Source: Gu et al.: MiniLLM, ICLR 2024, arXiv:2306.08543 (the divergence; at T = 1 for language models).
    """
    return compare(
        backward_kl,
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


def forward_kl(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
    return expected(log_t.exp(), log_t - log_s, factor)


def backward_kl(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
    return forward_kl(log_t, log_s, factor)


def _cross_entropy(log_s: Tensor, log_t: Tensor, factor: float) -> Tensor:
    return expected(log_t.exp(), log_s, -factor)
