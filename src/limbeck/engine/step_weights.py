"""How much each batch of a step weighs, so that the step is one on all that the task counts in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from limbeck.tasks import Task
from limbeck.types import Batch


def step_weights(window: Sequence[Batch], task: Task, fabric: Fabric) -> Sequence[float | Tensor | None]:
    """By what the loss of each batch is multiplied; None leaves it as it is.

    The gradients of batches add up, and the mean over processes is taken of what each has added. Where a task counts
    something else than samples, such as tokens, processes have different numbers of it, which are summed up first.

    Args:
        window: The batches of one step in this process.
        task: What is learned.
        fabric: The processes, all of which call this.
    """
    if fabric.world_size > 1 and type(task).size is not Task.size:
        sizes = [task.size(batch) for batch in window]
        own = torch.tensor(float(sum(sizes)), device=fabric.device)
        all_of_it: Any = fabric.all_reduce(own, reduce_op="sum")
        return [size * fabric.world_size / all_of_it for size in sizes]
    if len(window) == 1:
        return [None]
    sizes = [task.size(batch) for batch in window]
    return [size / sum(sizes) for size in sizes]
