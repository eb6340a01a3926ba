"""Losses whose temperature is the teacher's alone, or each sample's own: WTTM and NormKD."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import CLASSES
from limbeck.losses.response.softened import expected, softer
from limbeck.losses.response.standardization import centred
from limbeck.losses.shapes import agree, check_temperature


@full_precision
def wttm(student: Tensor, teacher: Tensor, *, temperature: float = 5.0) -> Tensor:
    """Weighted transformed teacher matching: U · KL(q ‖ p_s), q = p_t^γ / U, U = Σ p_t^γ, γ = 1/T.

    p_s and p_t are softmax at temperature 1: q is the teacher's distribution at T, the student has no temperature.
    U is 1 for a teacher that is certain, and C^(1 − γ) for one that is not: smooth targets count more. TTM, without
    that weight, is `kd` with temperature 1, teacher_temperature T and scale false.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        temperature: T > 0 divides the teacher's logits, the inverse of the exponent γ.

    Returns:
        (B,) values ≥ 0, 0 where p_s = q.

    Raises:
        RequestError: The shapes differ.

    Transfers: the teacher's softened probabilities, as the student's at temperature 1, most where they are smooth.
    Use: classifiers by their logits alone; no labels. T and the weight differ from pair to pair.
    Source: Zheng, Yang: Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024, arXiv:2402.11148;
        recommended weight 4 with T 5.
    """
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    check_temperature(temperature)
    powers = softer(F.log_softmax(teacher, dim=1), temperature)
    log_q = powers - powers.logsumexp(1, keepdim=True)
    return expected(powers.exp(), log_q - F.log_softmax(student, dim=1))


@full_precision
def normkd(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Normalised logits: (T σ_t)² · KL(p_t ‖ p_s), p = softmax(l / (T σ)), σ the deviation of a row of logits.

    σ is the unbiased one. A student's row of equal logits stays as it is and passes no gradient; where the teacher's
    are equal the loss is 0.

    Args:
        student: (B, C) logits, C ≥ 2.
        teacher: (B, C) logits.
        temperature: T > 0, in deviations.

    Returns:
        (B,) values ≥ 0, 0 where the logits agree up to scale and offset.

    Raises:
        RequestError: The shapes differ, or there is one class only.

    Transfers: the probabilities of all classes, each sample's softened by its own temperature.
    Use: in place of `kd` where samples' logits spread very differently; no labels.
    Source: Chi et al.: NormKD: Normalized Logits for Knowledge Distillation, 2023, arXiv:2308.00520;
        recommended weight 0.9 beside 0.1 of the task loss.
    """
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    check_temperature(temperature)
    (off_s, deviation_s), (off_t, deviation_t) = (centred(x) for x in (student, teacher))
    log_s = F.log_softmax(softer(off_s / deviation_s, temperature), dim=1)
    log_t = F.log_softmax(softer(off_t / deviation_t, temperature), dim=1)
    scale = deviation_t.squeeze(1).where(deviation_t.squeeze(1).isfinite(), 0.0) * temperature
    return expected(log_t.exp(), log_t - log_s) * scale.square()
