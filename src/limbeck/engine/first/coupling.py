"""Losses that compare the samples of a batch: of them several batches do not make one step on all samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from limbeck.distillers import Scheme
from limbeck.engine.first.stand_in import stand_in
from limbeck.types import Batch, TeacherOutput, map_teacher_output

EQUAL = 0.01
"""How far, of itself, a loss over a batch may lie from the mean over its halves and count as a mean over samples."""


@torch.no_grad()
def check_coupling(
    scheme: Scheme,
    batch: Batch,
    teacher_output: TeacherOutput | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    accumulate_steps: int,
) -> list[str]:
    """A line on the losses that are no mean over samples, where the gradients of several batches are joined.

    The first batch's losses are compared with the mean of those of its halves, in evaluation, so that batch norm does
    not count; the task loss does not either: labels that are missing are known to move it.

    Args:
        scheme: Prepared, on its device; it is left as it is.
        batch: The first batch.
        teacher_output: What the teacher says about it.
        autocast: Makes the context of a training's forward passes.
        accumulate_steps: How many batches make a step.
    """
    half = batch.size // 2
    if accumulate_steps < 2 or half < 2:
        return []
    parts = (slice(2 * half), slice(half), slice(half, 2 * half))
    whole, first, second = (_losses(scheme, batch, teacher_output, at, autocast) for at in parts)
    off = {
        name: abs((first[name] + second[name]) / 2 / value - 1)
        for name, value in whole.items()
        if value and not (name == "task" or name.startswith("task "))
    }
    coupled = [f"{name} ({share:.0%})" for name, share in off.items() if share > EQUAL]
    if not coupled:
        return []
    return [
        f"{accumulate_steps} accumulated batches are not one step on all their samples for what compares the samples "
        f"of a batch with one another; off on the halves of the first batch are {', '.join(coupled)}"
    ]


def _losses(
    scheme: Scheme,
    batch: Batch,
    teacher_output: TeacherOutput | None,
    at: slice,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Mapping[str, float]:
    """Each part of the loss on some of the batch's samples."""
    with stand_in(scheme) as tried, autocast():
        step = tried.eval()(batch.part(at), map_teacher_output(teacher_output, lambda x: x[at]))
    return {name: float(part) for name, part in step.parts.items()}
