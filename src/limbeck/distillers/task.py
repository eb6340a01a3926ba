"""The task loss as every scheme calls it: in fp32, and 0 for a batch without a label."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from limbeck.distillers.scheme import check_labels
from limbeck.errors import RequestError
from limbeck.losses.precision import call_loss
from limbeck.types import labelled


def task_value(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
    """`loss(logits, targets)`, computed in fp32 unless `limbeck.losses.own_precision` marks it.

    Where no sample of the batch has a label it is 0, with a gradient of zeros: the mean over none would be NaN.

    Raises:
        RequestError: The loss gives something else than one value, or the student has no output for a label.
    """
    if targets.is_cpu:  # where a look at a value is cheap
        value = _checked(loss, logits, targets)
        try:
            nothing = math.isnan(value.item()) and not labelled(targets).any()
        except (AttributeError, RuntimeError):
            nothing = False
            _one(value)
        if not nothing:
            return value
    if targets.is_floating_point():
        return _one(call_loss(loss, logits, targets))
    ignored = ~labelled(targets).any()
    # With a label that exists, value and gradient are finite, and can be multiplied by 0.
    return _one(call_loss(loss, logits, targets.masked_fill(ignored, 0))).masked_fill(ignored, 0.0)


def _checked(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, targets: Tensor) -> Tensor:
    """The loss; of labels that it does not take, the first is named."""
    try:
        return call_loss(loss, logits, targets)
    except IndexError:  # torch's own word for a label without an output
        check_labels(logits, targets)
        raise


def _one(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RequestError(
            f"task_loss(logits, targets) gives {given} instead of one value, such as a mean over samples"
        )
    return value
