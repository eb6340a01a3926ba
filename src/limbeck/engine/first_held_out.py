"""The first held-out batch: what of it does not fit the student is found before the first step, not after an epoch."""

from __future__ import annotations

import torch

from limbeck.distillers import Scheme
from limbeck.distillers.scheme import check_targets
from limbeck.errors import RequestError, as_request
from limbeck.models import device_of
from limbeck.taps import FLOATS, Conversion, dtype_of, evaluating
from limbeck.types import Batch, Inputs, map_targets, tensors_of


@torch.no_grad()
def settle_held_out(scheme: Scheme, training: Batch, held_out: Batch) -> None:
    """Let a student, settled on its training samples, read the first held-out ones.

    Args:
        scheme: The student; `reads` is set where these are floats of another precision than the training samples.
        training: A training batch.
        held_out: A held-out batch.

    Raises:
        RequestError: The student cannot read it, it holds another kind of numbers than the training batch, or a label
            for which the student has no output.
    """
    theirs, ours = _kinds(held_out.inputs), _kinds(training.inputs)
    if theirs != ours:
        raise RequestError(f"held-out inputs are {theirs}, and training inputs {ours}: give both the same")
    if scheme.reads is None and any(x.is_floating_point() for x in tensors_of(held_out.inputs)):
        scheme.reads = Conversion(FLOATS, dtype_of(scheme.student))
    few = held_out.first(2).to(device_of(scheme.student))
    with as_request(lambda reason: f"the student cannot read the held-out batch: {reason}"), evaluating(scheme):
        output = scheme.predict(few.inputs)
    if not scheme.task.labelled:
        return
    targets = map_targets(held_out.targets, lambda x: x.to(output.device))
    try:
        check_targets(scheme.task, output[:1].expand(held_out.size, *output.shape[1:]), targets)
    except RequestError as error:
        raise RequestError(f"held-out labels: {error}") from error


def _kinds(inputs: Inputs) -> str:
    """The dtypes of some inputs, all floating-point ones as one."""
    kinds = ("floats" if x.is_floating_point() else str(x.dtype).removeprefix("torch.") for x in tensors_of(inputs))
    return ", ".join(dict.fromkeys(kinds))
