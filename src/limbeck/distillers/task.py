"""The task loss as every scheme calls it: in fp32, and 0 for a batch without a label."""

from __future__ import annotations

import math

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import call_loss, keeps_precision
from limbeck.tasks import Task
from limbeck.types import Targets


def task_value(task: Task, output: Tensor, targets: Targets) -> Tensor:
    """`task.loss(output, targets)`, computed in fp32 unless `limbeck.losses.own_precision` marks a loss of your own.

    Where no target of the batch counts it is 0, with a gradient of zeros: the mean over none would be NaN.

    Raises:
        RequestError: The loss gives something else than one value, or the student has no output for a label.
    """
    if not isinstance(targets, Tensor):
        return _one(_called(task, output, targets))
    if targets.is_cpu:  # where a look at a value is cheap
        value = _checked(task, output, targets)
        try:
            nothing = math.isnan(value.item()) and not task.known(targets).any()
        except (AttributeError, RuntimeError):
            nothing = False
            _one(value)
        if not nothing:
            return value
    if targets.is_floating_point():
        return _one(_called(task, output, targets))
    ignored = ~task.known(targets).any()
    # With a label that exists, value and gradient are finite, and can be multiplied by 0.
    return _one(_called(task, output, targets.masked_fill(ignored, 0))).masked_fill(ignored, 0.0)


def _called(task: Task, output: Tensor, targets: Targets) -> Tensor:
    own = task.own_loss
    if own is not None and keeps_precision(own):
        return task.loss(output, targets)
    return call_loss(task.loss, output, targets)


def _checked(task: Task, output: Tensor, targets: Tensor) -> Tensor:
    """The loss; of labels that it does not take, the first is named."""
    try:
        return _called(task, output, targets)
    except IndexError:  # torch's own word for a label without an output
        task.check(output, targets)
        raise


def _one(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RequestError(
            f"the task's loss(output, targets) gives {given} instead of one value, such as a mean over samples"
        )
    return value
