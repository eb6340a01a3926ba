"""Losses that weigh or replace the labels: WSLD and hard-label distillation; the plain match of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.precision import full_precision, sees_to_it
from limbeck.losses.response.divergence import kd
from limbeck.losses.response.positions import CLASSES, Average, averaged, over_positions
from limbeck.losses.samples import known_labels, where_known
from limbeck.losses.shapes import agree, class_indices


@full_precision
def wsld(student: Tensor, teacher: Tensor, *, targets: Tensor, temperature: float = 2.0) -> Tensor:
    """Weighted soft labels: (1 − exp(−CE_s / CE_t)) · T² · KL(p_t ‖ p_s).

    Samples on which the student is already better than the teacher count less. CE = cross-entropy
    with the labels at temperature 1; the weight carries no gradient. CE_s itself is the task loss, and not
    added here.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits.
        targets: (B,) class indices; a sample whose index is -100 has no label, and the value 0.
        temperature: T > 0 divides both logits.

    Returns:
        (B,) values ≥ 0, 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ, or the targets are not class indices.

    Transfers: softened probabilities, most for the samples on which the student is worse than the teacher.
    Use: classifiers with labels, where soft labels hold back a student on samples that it has mastered.
    Source: Zhou et al.: Rethinking Soft Labels for Knowledge Distillation, ICLR 2021, arXiv:2102.00650;
        recommended weight 2.25 on CIFAR, 2.5 on ImageNet.
    """
    agree(student, teacher, (2,), 0, 1, remedy=CLASSES)
    class_indices(targets, student)
    _, known = known_labels(targets, student.shape[1])
    with torch.no_grad():
        ce_s, ce_t = (F.cross_entropy(x, targets, reduction="none") for x in (student, teacher))
        weight = -torch.expm1(-ce_s / ce_t.clamp(min=1e-7))
    return where_known(weight * kd(student, teacher, temperature=temperature), known)


@sees_to_it
def hard_label(
    student: Tensor,
    teacher: Tensor,
    *,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    average: Average = "samples",
) -> Tensor:
    """Cross-entropy with the teacher's decision: −log p_s[argmax l_t].

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape.
        targets: Labels that show the positions to ignore, as in `kd`.
        ignore_index: The target of such positions; None counts all.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values ≥ 0, a sample's mean over its positions; 0 where the student is certain of the same class.

    Raises:
        RequestError: The shapes differ.

    Transfers: the class that the teacher decides for, not how sure it is.
    Use: vision transformers, for which DeiT found it better than soft labels; no temperature to choose.
    Source: Touvron et al.: Training data-efficient image transformers (DeiT), ICML 2021, arXiv:2012.12877;
        recommended weight 0.5 beside 0.5 of the task loss.
    """
    agree(student, teacher, (2, 3, 4), *range(student.dim()), remedy=CLASSES)
    values = _decision(student, teacher)
    if values.dim() == 1 and ignore_index is None:
        return values
    return averaged(
        values.reshape(len(values), -1), student, targets=targets, ignore_index=ignore_index, average=average
    )


@sees_to_it
def logit_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    average: Average = "samples",
) -> Tensor:
    """Squared distance of centred logits: mean over classes of (z_s − z_t)², z = l − mean(l).

    Centring makes it blind to a constant added to all logits, which changes no probability.

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape.
        targets: Labels that show the positions to ignore, as in `kd`.
        ignore_index: The target of such positions; None counts all.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values ≥ 0, a sample's mean over its positions; NaN where a logit is −∞, as such rows have no mean.

    Raises:
        RequestError: The shapes differ.

    Transfers: the logits themselves, but for a constant.
    Use: where the student is to imitate the teacher's function as a whole; no temperature to choose, no labels.
    Source: Ba, Caruana: Do Deep Nets Really Need to be Deep?, NeurIPS 2014, arXiv:1312.6184.
    """
    return over_positions(
        _centred_square, student, teacher, targets=targets, ignore_index=ignore_index, average=average
    )


@sees_to_it
def probability_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    average: Average = "samples",
) -> Tensor:
    """Squared distance of probabilities: mean over classes of (p_s − p_t)², p = softmax(l).

    Args:
        student: (B, C), (B, L, C) or (B, C, H, W) logits.
        teacher: Logits of the same shape.
        targets: Labels that show the positions to ignore, as in `kd`.
        ignore_index: The target of such positions; None counts all.
        average: "samples" or "positions", as in `kd`.

    Returns:
        (B,) values in [0, 2/C], a sample's mean over its positions; 0 where both distributions agree.

    Raises:
        RequestError: The shapes differ.

    Transfers: the probabilities themselves, bounded: none that is nearly 0 counts for much.
    Use: consistency with a running average of the student (scheme mean-teacher), which errs early on; no labels.
    Source: Tarvainen, Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780;
        recommended weight 100 for 10 classes, reached exponentially within a few epochs.
    """
    return over_positions(
        _probability_square, student, teacher, targets=targets, ignore_index=ignore_index, average=average
    )


@full_precision
def _probability_square(student: Tensor, teacher: Tensor) -> Tensor:
    p_s, p_t = student.softmax(-1), teacher.softmax(-1)
    return F.mse_loss(p_s, p_t, reduction="none").sum(-1) / student.shape[-1]


@full_precision
def _decision(student: Tensor, teacher: Tensor) -> Tensor:
    if student.dim() == 3:
        student, teacher = student.mT, teacher.mT
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


@full_precision
def _centred_square(student: Tensor, teacher: Tensor) -> Tensor:
    # The centre is where the sum of squares is least, so that it needs to carry no gradient.
    constant = (student - teacher).detach().mean(-1, keepdim=True)
    return F.mse_loss(student, teacher + constant, reduction="none").sum(-1) / student.shape[-1]
