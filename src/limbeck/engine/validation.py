"""Held-out figures: a model, or all predictions of a scheme, run once over held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from limbeck.distillers import Scheme
from limbeck.engine.batches.held_out import HeldOut
from limbeck.errors import RequestError
from limbeck.tasks import Metrics, Task
from limbeck.teachers import Teacher
from limbeck.types import Batch, Targets, part_of

Hear = Callable[[str, Tensor, Targets], None]


@torch.no_grad()
def figures(
    predict: Callable[[Batch], Mapping[str, Tensor]],
    held_out: HeldOut,
    task: Task,
    teacher: Teacher | None = None,
    hear: Hear | None = None,
) -> dict[str, dict[str, float]]:
    """The task's metrics of each prediction by name, over all samples of all processes: the same in each of them.

    Args:
        predict: From a batch to outputs by name.
        held_out: The samples; networks should be in eval mode.
        task: What is measured.
        teacher: To measure agreement with.
        hear: Gets each prediction's name, outputs and targets, batch by batch.

    Raises:
        RequestError: There is no batch, or no sample with a label.
    """
    found: dict[str, Metrics] = {}
    for batch, counted in held_out:
        given = None if teacher is None else teacher(batch).output
        taught = None if given is None else task.output(given)[:counted]
        for name, output in predict(batch).items():
            metrics = found.setdefault(name, task.metrics())
            if counted:
                some = output[:counted], part_of(batch.targets, slice(counted))
                metrics.update(*some, taught)
                if hear is not None:
                    hear(name, *some)
    states = held_out.gathered({name: metrics.state() for name, metrics in found.items()})
    names = list(dict.fromkeys(name for state in states for name in state))
    if not names:
        raise RequestError("nothing to evaluate: the loader gives no batch at all")
    return {name: task.metrics().figures([state[name] for state in states if name in state]) for name in names}


def predictions(scheme: Scheme, batch: Batch) -> Mapping[str, Tensor]:
    """All outputs of a scheme that are measured, the one by which it is chosen among them."""
    return scheme.predictions(batch.inputs) or {scheme.chosen: scheme.predict(batch.inputs)}
