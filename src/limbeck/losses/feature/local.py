"""Losses on what the classifiers make of each place of a map: SDD and CAT-KD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.losses.maps import pool_to
from limbeck.losses.precision import full_precision
from limbeck.losses.response.decoupled import dkd
from limbeck.losses.response.divergence import kd
from limbeck.losses.samples import known_labels, mean_square, where_known
from limbeck.losses.shapes import agree, check_temperature, class_indices
from limbeck.losses.vectors import unit

Base = Literal["kd", "dkd"]


@full_precision
def sdd(
    student: Tensor,
    teacher: Tensor,
    *,
    student_classifier: nn.Linear,
    teacher_classifier: nn.Linear,
    targets: Tensor,
    scales: Sequence[int] = (1, 2, 4),
    complement_weight: float = 2.0,
    base: Base = "kd",
    temperature: float = 4.0,
    nontarget_weight: float = 8.0,
) -> Tensor:
    """Scale-decoupled logits: mean over cells of w · D(h_t(f_t), h_s(f_s)), f averaged over the cell, h classifiers.

    The cells are those of grids of m × m for each m of `scales`, so that 1 is the logits themselves. w is 1 where the
    teacher is right on the cell as on the whole image, or wrong on both, and β where it is right on one of them only.
    D is `kd`, or `dkd`. The paper adds the cells up; the mean over them is that of its authors' code.

    Args:
        student: (B, C_s, H_s, W_s) map whose mean over positions the student's classifier reads.
        teacher: (B, C_t, H_t, W_t) map whose mean over positions the teacher's classifier reads.
        student_classifier: The student's last linear layer itself, which the loss trains too.
        teacher_classifier: The teacher's, frozen.
        targets: (B,) class indices; a sample whose index is -100 has no label, and the value 0.
        scales: Cells a side of each grid.
        complement_weight: β.
        base: D.
        temperature: T > 0 of D.
        nontarget_weight: That of `dkd`; `kd` has none.

    Returns:
        (B,) values ≥ 0, 0 where the logits of all cells agree.

    Raises:
        RequestError: Not two maps of one batch for these classifiers, or an option or the targets do not fit.

    Transfers: the probabilities of all classes for the whole image and for each of its parts.
    Use: convolutional networks with a linear classifier behind global average pooling; labels. Finer scales for
        networks of different kinds.
    Source: Wei, Luo, Luo: Scale Decoupled Distillation, CVPR 2024, arXiv:2403.13512;
        recommended weight 0.9 beside 0.1 of the task loss with `kd`, 1 with `dkd`, warmed up over 20 epochs.
    """
    _classified(student, teacher, student_classifier, teacher_classifier)
    class_indices(targets, student)
    check_temperature(temperature)
    if base not in get_args(Base):
        raise unknown("base of sdd", base, get_args(Base))
    if not scales or min(scales) < 1:
        raise RequestError(f"sdd needs scales of 1 or more, not {list(scales)}")
    labels, known = known_labels(targets, student_classifier.out_features)
    s = _logits(student_classifier, _means(student, scales))
    t = _logits(teacher_classifier, _means(teacher, scales))
    whole = _logits(teacher_classifier, teacher.mean((2, 3))).argmax(1) == labels
    parts = t.argmax(2) == labels[:, None]
    weights = torch.where(parts == whole[:, None], 1.0, complement_weight)
    pair = s.flatten(0, 1), t.flatten(0, 1)
    if base == "kd":
        values = kd(*pair, temperature=temperature)
    else:
        repeated = labels.repeat_interleave(s.shape[1])
        values = dkd(*pair, targets=repeated, temperature=temperature, nontarget_weight=nontarget_weight)
    return where_known((values.view_as(weights) * weights).mean(1), known)


@full_precision
def catkd(
    student: Tensor,
    teacher: Tensor,
    *,
    student_classifier: nn.Linear,
    teacher_classifier: nn.Linear,
    resolution: int = 2,
    normalize: bool = True,
) -> Tensor:
    """Class attention: mean over classes and cells of (Â_s − Â_t)², Â = A/‖A‖ for each class, A = W f.

    A are the class activation maps: what a classifier's weights W, without its bias, make of the map f in front of its
    global average pooling, averaged over the cells of a grid.

    Args:
        student: (B, C_s, H_s, W_s) map whose mean over positions the student's classifier reads.
        teacher: (B, C_t, H_t, W_t) map whose mean over positions the teacher's classifier reads.
        student_classifier: The student's last linear layer itself, which the loss trains too.
        teacher_classifier: The teacher's, frozen.
        resolution: Cells a side of the grid.
        normalize: Whether each class's map has length 1; the authors' code leaves them as they are for networks of
            one kind.

    Returns:
        (B,) values ≥ 0, 0 where the class activation maps agree.

    Raises:
        RequestError: Not two maps of one batch for these classifiers, or a resolution below 1.

    Transfers: for each class the places that speak for it.
    Use: convolutional networks with a linear classifier behind global average pooling; no labels.
    Source: Guo et al.: Class Attention Transfer Based Knowledge Distillation, CVPR 2023, arXiv:2304.12777;
        recommended weight 0.7 to 600 by pair of networks, so that the loss is 1 to 50 after the first epoch.
    """
    _classified(student, teacher, student_classifier, teacher_classifier)
    if resolution < 1:
        raise RequestError(f"catkd needs a resolution of 1 or more, not {resolution}")
    a_s, a_t = (
        _means(feature, (resolution,)) @ classifier.weight.to(feature.dtype).T
        for feature, classifier in ((student, student_classifier), (teacher, teacher_classifier))
    )
    return mean_square(*((unit(a, dim=1) for a in (a_s, a_t)) if normalize else (a_s, a_t)))


def _logits(classifier: nn.Linear, x: Tensor) -> Tensor:
    bias = None if classifier.bias is None else classifier.bias.to(x.dtype)
    return F.linear(x, classifier.weight.to(x.dtype), bias)


def _means(feature: Tensor, scales: Sequence[int]) -> Tensor:
    """(B, cells, C) means of a map over the cells of all grids."""
    return torch.cat([pool_to(feature, (m, m)).flatten(2) for m in scales], dim=2).transpose(1, 2)


def _classified(student: Tensor, teacher: Tensor, of_student: nn.Linear, of_teacher: nn.Linear) -> None:
    agree(student, teacher, (4,), 0, remedy="both are maps in front of global average pooling")
    wanted = of_student.in_features, of_teacher.in_features
    if (student.shape[1], teacher.shape[1]) != wanted or of_student.out_features != of_teacher.out_features:
        raise RequestError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have {wanted[0]} and {wanted[1]} "
            "channels, and their classifiers as many classes as one another"
        )
