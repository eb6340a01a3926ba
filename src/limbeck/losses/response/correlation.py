"""Losses that compare how the predictions of a batch vary together: DIST and multi-level logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import CLASSES
from limbeck.losses.response.softened import expected, softer, times
from limbeck.losses.response.standardization import standardize as standardized
from limbeck.losses.shapes import agree, check_temperature
from limbeck.losses.vectors import uncorrelated

_LEAST = 1e-8
"""ε of `dist`."""


@full_precision
def dist(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
) -> Tensor:
    """τ² · [β · mean(1 − ρ of each row) + γ · mean(1 − ρ of each column)] of p = softmax(l / τ).

    ρ = ⟨a, b⟩ / (‖a‖‖b‖ + ε) is Pearson's correlation, of a and b without their means: over the classes of a sample
    (inter), over the batch for a class (intra). ε = 1e-8, as in the authors' code, keeps classes that are absent from
    a batch out of it: their probabilities are next to nothing on both sides, yet would be compared up to scale, and at
    τ = 1 with sharp logits and 100 classes make up nearly all of the gradient. A row or column with ‖a‖‖b‖ far
    below ε counts 1, without a gradient. Constant ones on both sides agree: a batch of one has no intra part.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        temperature: τ > 0 divides both logits; 4 on CIFAR.
        inter_weight: β.
        intra_weight: γ.

    Returns:
        A scalar ≥ 0; where all correlate fully, what ε leaves of it: next to nothing but for absent classes.

    Raises:
        RequestError: The shapes differ.

    Transfers: how a sample's classes compare, and how a class's samples do, up to scale and offset.
    Use: a teacher much stronger than the student, whose exact probabilities are out of reach; batches of many samples.
    Source: Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv:2205.10536;
        recommended weight 2 (with β = γ = 1).
    """
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    check_temperature(temperature)
    s, t = (F.softmax(softer(x, temperature), dim=1) for x in (student, teacher))
    inter, intra = (uncorrelated(s, t, dim=dim, largest=1.0, least=_LEAST).mean() for dim in (1, 0))
    return times(inter, inter_weight * temperature**2) + times(intra, intra_weight * temperature**2)


@full_precision
def mlkd(
    student: Tensor,
    teacher: Tensor,
    *,
    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
    instance_weight: float = 1.0,
    batch_weight: float = 1.0,
    class_weight: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """Multi-level logits: Σ_T [ c T² KL(p_t ‖ p_s)/B + a‖P_sP_sᵀ − P_tP_tᵀ‖²_F/B + b‖P_sᵀP_s − P_tᵀP_t‖²_F/C ].

    P is the (B, C) matrix of probabilities at T: instance, batch and class level, which the paper adds up. It compares
    two views of each sample, weak and strong, where this is one: put both into the batch, or add the loss of both. Its
    masks keep the half of the samples, and of the classes, of which the teacher is least sure; the authors' code
    multiplies them with means that are already taken, so that they amount to a factor of ½, and are not in here. That
    code, with both views the same, is c = 1.5 and a = b = 0.5 with weight 0.9, beside 0.2 of the task loss: the strong
    view counts in the instance level, without a mask, and not in the others; the labels count for both views.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        temperatures: Each T > 0; the terms of all are added.
        instance_weight: c, of the divergences of the samples.
        batch_weight: a, of the (B, B) relations between samples.
        class_weight: b, of the (C, C) relations between classes.
        standardize: Standardise both logits first where samples are compared (arXiv:2403.01427), not in the
            relations.

    Returns:
        A scalar ≥ 0, 0 where both predict the same.

    Raises:
        RequestError: The shapes differ, or no temperature is given.

    Transfers: probabilities at several temperatures, and how samples and classes of the batch relate.
    Use: classifiers by their logits alone, where batches are large enough for relations; no labels.
    Source: Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023; recommended weight 0.9 beside 0.2 of
        the task loss, with c 1.5, a and b 0.5, for one view.
    """
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    if not temperatures:
        raise RequestError("mlkd needs one temperature at least")
    own = tuple(standardized(x) if standardize else x for x in (student, teacher))
    levels = []
    for temperature in temperatures:
        check_temperature(temperature)
        log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in own)
        p_s, p_t = log_s.exp(), log_t.exp()
        instance = expected(p_t, log_t - log_s).mean() * temperature**2
        if standardize:
            p_s, p_t = (F.softmax(x / temperature, dim=1) for x in (student, teacher))
        batch = (p_s @ p_s.T - p_t @ p_t.T).square().sum(1).mean()
        classes = (p_s.T @ p_s - p_t.T @ p_t).square().sum(1).mean()
        levels.append(instance_weight * instance + batch_weight * batch + class_weight * classes)
    return torch.stack(levels).sum()
