"""The first held-out batch: what of it does not fit the student is found before the first step, not after an epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.distillers import Scheme
from limbeck.distillers.scheme import check_targets
from limbeck.errors import RequestError, as_request, unknown
from limbeck.models import device_of
from limbeck.taps import FLOATS, Conversion, dtype_of, evaluating
from limbeck.tasks import Task
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
    scheme.task.check_kind(held_out.targets)
    _check_monitor(scheme.task, output, few)
    targets = map_targets(held_out.targets, lambda x: x.to(output.device))
    try:
        check_targets(scheme.task, output[:1].expand(held_out.size, *output.shape[1:]), targets)
    except RequestError as error:
        raise RequestError(f"held-out labels: {error}") from error


def _check_monitor(task: Task, output: Tensor, batch: Batch) -> None:
    """Raise RequestError for a monitor that is none of the task's metrics, as some samples show them."""
    try:
        metrics = task.metrics()
        metrics.update(output, map_targets(batch.targets, lambda x: x.to(output.device)), None)
        names = metrics.figures([metrics.state()])
    except NotImplementedError:
        raise RequestError(
            f"{type(task).__name__} has no metrics: write own_metrics, or leave the validation data out"
        ) from None
    except Exception:  # so few samples may have no figures
        return
    if names and task.monitor not in names:
        known = [name for name in names if name != "samples"]
        raise unknown("monitor", task.monitor, known)


def _kinds(inputs: Inputs) -> str:
    """The dtypes of some inputs, all floating-point ones as one."""
    kinds = ("floats" if x.is_floating_point() else str(x.dtype).removeprefix("torch.") for x in tensors_of(inputs))
    return ", ".join(dict.fromkeys(kinds))
