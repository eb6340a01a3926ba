"""Losses between outputs that are no distribution over classes: labels of their own each, and plain numbers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.shapes import agree, check_temperature


@full_precision
def sigmoid_kd(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, scale: bool = True) -> Tensor:
    """Mean over labels of T² · KL(Bernoulli(σ(l_t / T)) ‖ Bernoulli(σ(l_s / T))): a distribution for each label.

    Args:
        student: (B, C) logits of C labels, or of two classes as one logit, (B, 1).
        teacher: Logits of the same shape.
        temperature: T > 0 divides both logits.
        scale: Multiply by T², so that gradients keep their size at other temperatures.

    Returns:
        (B,) values ≥ 0, 0 where all probabilities agree.

    Raises:
        RequestError: The shapes differ, or T is not above 0.

    Transfers: how probable the teacher finds each label.
    Use: several labels a sample, and binary outputs; a softmax would make the labels rivals.
    Source: Yang et al.: Multi-Label Knowledge Distillation, ICCV 2023, arXiv:2308.06453 (one-versus-all reduction),
        with its binary divergence alone; recommended weight 10 there, at T 1.
    """
    agree(student, teacher, (2,), 0, 1, remedy="teacher and student must know the same labels")
    check_temperature(temperature)
    s, t = student / temperature, teacher / temperature
    p = t.sigmoid()
    # Σ q log(q / p) over both outcomes, in log-space: log σ(−x) = log σ(x) − x.
    divergence = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    values: Tensor = divergence.mean(1)
    return values * temperature**2 if scale else values


@full_precision
def bounded_regression(student: Tensor, teacher: Tensor, *, targets: Tensor, margin: float = 0.0) -> Tensor:
    """Teacher-bounded residual: r_s where r_s + m > r_t, else 0; r = ‖· − y‖² / K over the K numbers of a sample.

    Args:
        student: (B, K) numbers.
        teacher: (B, K) numbers.
        targets: (B, K) or, of one number, (B,): what is right.
        margin: m ≥ 0; how much better than the teacher the student must be to be left alone.

    Returns:
        (B,) values ≥ 0; 0 for a sample on which the student is better than the teacher by the margin.

    Raises:
        RequestError: The shapes differ.

    Transfers: how far a good model comes: an upper bound of the error, in place of the teacher's own numbers.
    Use: regression with labels, where a teacher's error would otherwise be learned; beside the task loss.
    Source: Chen et al.: Learning Efficient Object Detection Models with Knowledge Distillation, NeurIPS 2017,
        equation 4; recommended weight 0.5 there.
    """
    agree(student, teacher, (2,), 0, 1, remedy="teacher and student must give as many numbers")
    if targets.numel() != student.numel():
        raise RequestError(f"targets {tuple(targets.shape)} do not fit outputs {tuple(student.shape)}")
    y = targets.reshape(student.shape).to(student.dtype)
    own, bound = ((x - y).square().mean(1) for x in (student, teacher))
    values: Tensor = own.where(own + margin > bound, 0.0)
    return values
