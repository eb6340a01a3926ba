"""Files that are run as they will be on a device: each as a function from a batch to its outputs, in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.quantization.session import Array, Given, Runner
from limbeck.shipping.score import Judged
from limbeck.tasks import Task
from limbeck.types import Batch, Targets


def module(network: nn.Module) -> Runner:
    """A network in PyTorch, of its inputs in order."""

    @torch.no_grad()
    def run(given: Given) -> Array:
        found: Any = network(*map(torch.from_numpy, given.values()))
        return np.asarray(found.numpy(), dtype=np.float32)

    return run


def program(path: Path) -> Runner:
    """A file of torch.export (.pt2)."""
    return module(torch.export.load(path).module())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def judge(
    run: Runner,
    batches: Iterable[Batch],
    read: Callable[[Any], Given],
    task: Task,
    teacher: Sequence[Tensor] | None = None,
) -> Judged:
    """Run a file over a split.

    Args:
        run: The file.
        batches: The split, in order.
        read: From a batch's inputs to what the file reads.
        task: What is learned.
        teacher: The teacher's outputs on each of the batches.

    Raises:
        RequestError: The split is empty, or none of its samples has a label.
    """

    def answered() -> Iterator[tuple[Tensor, Targets, Tensor | None]]:
        for number, batch in enumerate(map(task.batch, batches)):
            output = task.output(torch.from_numpy(run(read(batch.inputs))))
            targets = batch.targets.cpu() if isinstance(batch.targets, Tensor) else batch.targets
            yield output, targets, None if teacher is None else teacher[number]

    return Judged.of(task, answered())
