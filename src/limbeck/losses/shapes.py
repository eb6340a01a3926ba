"""Checks that the losses share: an error names both shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError, shown

_ADAPT = "give the term an adapter"


def same_shape(student: Tensor, teacher: Tensor, remedy: str = _ADAPT) -> None:
    """Raise RequestError unless both tensors have one shape."""
    if student.shape != teacher.shape:
        raise RequestError(f"{_both(student.shape, teacher.shape)} must have the same shape; {remedy}")


def agree(student: Tensor, teacher: Tensor, dimensions: Sequence[int], *axes: int, remedy: str = _ADAPT) -> None:
    """Raise RequestError unless both have an allowed number of dimensions and one size along each axis."""
    if student.shape == teacher.shape and student.dim() in dimensions:
        return
    for tensor in (student, teacher):
        if tensor.dim() not in dimensions:
            wanted = " or ".join(map(str, dimensions))
            raise RequestError(f"{_both(student.shape, teacher.shape)} must have {wanted} dimensions; {remedy}")
    apart = [a for a in axes if a >= teacher.dim() or student.shape[a] != teacher.shape[a]]
    if apart:
        where = " and ".join(map(str, apart))
        if remedy != _ADAPT and min(apart) > 1 and student.dim() == teacher.dim() == 4:  # outputs of the same classes
            remedy = f"resize the teacher's, as teacher=lambda x: F.interpolate(network(x), {tuple(student.shape[2:])})"
        many = "s" if len(apart) > 1 else ""
        raise RequestError(f"{_both(student.shape, teacher.shape)} differ in dimension{many} {where}; {remedy}")


def several_samples(student: Tensor, teacher: Tensor) -> None:
    """Raise RequestError unless both are (B, ...) features with one batch size."""
    if student.dim() < 2 or teacher.dim() < 2 or len(student) != len(teacher):
        raise RequestError(f"{_both(student.shape, teacher.shape)} must be (B, ...) of one batch")


def class_indices(targets: Tensor, logits: Tensor) -> None:
    """Raise RequestError unless targets are (B,) class indices for (B, C) logits."""
    if targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise RequestError(
            f"targets {tuple(targets.shape)} of {targets.dtype} must be class indices, one for each row of "
            f"the logits {tuple(logits.shape)}; mixed labels (mixup, cutmix) do not fit this loss"
        )


def in_range(
    labels: Tensor, classes: int, known: Tensor | None = None, *, what: str = "label", ignored: int | None = None
) -> None:
    """Raise RequestError unless labels, of any shape, are 0 or more and below the number of classes.

    Args:
        labels: Class indices.
        classes: Of the student.
        known: Which of them count; None for all.
        what: The message's word for a label.
        ignored: The label that does not count, where the message should say how to choose it.
    """
    beyond = (labels < 0) | (labels >= classes)
    wrong = labels[beyond if known is None else beyond & known]
    if len(wrong):
        hint = "" if ignored is None else f"; a class that is to be left out is named by ignore_index (now {ignored})"
        raise RequestError(f"{what} {int(wrong[0])} is out of range: the student has {classes} classes{hint}")


def check_temperature(temperature: float) -> None:
    """Raise RequestError unless a temperature is above 0 and finite."""
    try:
        fits = 0 < temperature < math.inf
    except TypeError:
        fits = False
    if not fits:
        raise RequestError(f"temperature must be above 0 and finite, not {shown(temperature)}")


def channels(student: Sequence[int], teacher: Sequence[int]) -> tuple[int, int]:
    """C_s and C_t of two probed shapes (B, C, ...), for losses that build layers from them."""
    if not all(isinstance(n, int) for n in (*student, *teacher)) or min(len(student), len(teacher)) < 2:
        raise RequestError(f"{_both(student, teacher)} must be the shape of one (B, C, ...) tensor each")
    return student[1], teacher[1]


def pair(value: Any, name: str) -> tuple[Tensor, Tensor]:
    """Two tensors of a tuple, or RequestError."""
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(v, Tensor) for v in value):
        return value[0], value[1]
    raise RequestError(f"{name} must be a tuple of two tensors: give the term two taps, not {_describe(value)}")


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor {tuple(value.shape)}"
    return f"{len(value)} of them" if isinstance(value, tuple | list) else type(value).__name__


def _both(student: Sequence[Any], teacher: Sequence[Any]) -> str:
    return f"student {tuple(student)} and teacher {tuple(teacher)}"
