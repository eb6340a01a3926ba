"""Losses that part the target class from the others: DKD and NKD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.response.positions import CLASSES
from limbeck.losses.response.softened import expected
from limbeck.losses.response.standardization import standardize as standardized
from limbeck.losses.samples import known_labels, where_known
from limbeck.losses.shapes import agree, check_temperature, class_indices


@full_precision
def dkd(
    student: Tensor,
    teacher: Tensor,
    *,
    targets: Tensor,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    nontarget_weight: float = 8.0,
    standardize: bool = False,
) -> Tensor:
    """Decoupled KD: T² · [α · TCKD + β · NCKD].

    TCKD = KL between the binary distributions (p_y, 1 − p_y); NCKD = KL between the distributions over the
    other classes, p̂_i = p_i / (1 − p_y). Both are taken in log space, so that p_y = 1 does no harm.

    Args:
        student: (B, C) logits, C ≥ 2.
        teacher: (B, C) logits.
        targets: (B,) class indices y; a sample whose index is -100 has no label, and the value 0.
        temperature: T > 0 divides both logits.
        target_weight: α.
        nontarget_weight: β; 8 for most CIFAR pairs, 1 on ImageNet.
        standardize: Standardise both logits first (arXiv:2403.01427).

    Returns:
        (B,) values ≥ 0, 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or the targets are not class indices.

    Transfers: how sure the teacher is of the labelled class, and how it ranks the others, each with a weight of its
        own.
    Use: classifiers with labels, above all where a very sure teacher leaves the other classes little weight in `kd`.
    Source: Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022, arXiv:2203.08679;
        recommended weight 1, warmed up over 20 epochs.
    """
    _classified(student, teacher, targets, temperature)
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    targets, known = known_labels(targets, student.shape[1])
    target_s, others_s = _split(student / temperature, targets)
    target_t, others_t = _split(teacher / temperature, targets)
    tckd = _kl(_binary(target_s, others_s), _binary(target_t, others_t))
    nckd = _kl(F.log_softmax(others_s, dim=-1), F.log_softmax(others_t, dim=-1))
    return where_known((target_weight * tckd + nontarget_weight * nckd) * temperature**2, known)


@full_precision
def nkd(
    student: Tensor,
    teacher: Tensor,
    *,
    targets: Tensor,
    temperature: float = 3.0,
    nontarget_weight: float = 3.5,
) -> Tensor:
    """Normalised KD: −t_y log s_y − γ T² Σ_{i≠y} t̂_i log ŝ_i, the part of NKD that distils.

    s, t = softmax at temperature 1; ŝ, t̂ = softmax at T over the classes other than y. The published sum
    has also −log s_y, the cross-entropy with the labels: that is the task loss, and not in here.

    Args:
        student: (B, C) logits, C ≥ 2.
        teacher: (B, C) logits.
        targets: (B,) class indices y; a sample whose index is -100 has no label, and the value 0.
        temperature: T > 0 of the other classes; 3 on CIFAR, 1 on ImageNet.
        nontarget_weight: γ; 3.5 on CIFAR, 1.5 on ImageNet.

    Returns:
        (B,) values ≥ 0; for a given s_y least, γ T² · H(t̂), where ŝ = t̂.

    Raises:
        RequestError: The shapes differ, or the targets are not class indices.

    Transfers: the teacher's probability of the labelled class, and how it ranks the others.
    Use: classifiers with labels, by their logits alone; T and γ differ between small and large data sets.
    Source: Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation, ICCV 2023,
        arXiv:2303.13005; recommended weight 1 beside the whole task loss.
    """
    _classified(student, teacher, targets, temperature)
    targets, known = known_labels(targets, student.shape[1])
    log_s = F.log_softmax(student, dim=-1).gather(1, targets[:, None]).squeeze(1)
    t = F.softmax(teacher, dim=-1).gather(1, targets[:, None]).squeeze(1)
    _, others_s = _split(student / temperature, targets)
    _, others_t = _split(teacher / temperature, targets)
    others = expected(F.softmax(others_t, dim=-1), F.log_softmax(others_s, dim=-1))
    return where_known(-t * log_s - (nontarget_weight * temperature**2) * others, known)


def _classified(student: Tensor, teacher: Tensor, targets: Tensor, temperature: float) -> None:
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    class_indices(targets, student)
    check_temperature(temperature)
    if student.shape[1] < 2:
        raise RequestError(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} have one class only")


def _split(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) logits of the targets and (B, C − 1) of the other classes."""
    y = targets[:, None]
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, y), logits.gather(1, others + (others >= y).long())


def _binary(target: Tensor, others: Tensor) -> Tensor:
    """(B, 2) log-probabilities of the target class and of all others together."""
    return F.log_softmax(torch.cat([target, others.logsumexp(-1, keepdim=True)], -1), dim=-1)


def _kl(log_s: Tensor, log_t: Tensor) -> Tensor:
    return expected(log_t.exp(), log_t - log_s)
