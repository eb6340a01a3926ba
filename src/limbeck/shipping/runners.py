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
from limbeck.shipping.score import KEPT, Gathering, Judged
from limbeck.tasks import Task
from limbeck.types import Batch


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
    files: Sequence[tuple[Runner, Callable[[Any], Given]]],
    asked: Iterable[tuple[Batch, Tensor | None]],
    task: Task,
    keep: int = KEPT,
) -> list[Judged]:
    """Run files over a split, which is read once: all of them on a batch, then the next batch.

    Args:
        files: Each file, and from a batch's inputs to what it reads.
        asked: The split's batches in order, each with the teacher's outputs; None without a teacher.
        task: What is learned.
        keep: Numbers of each file's outputs that are kept to be compared with another one's.

    Raises:
        RequestError: The split is empty, or none of its samples has a label.
    """
    found = [Gathering(task, keep) for _ in files]
    for batch, teacher in asked:
        targets = batch.targets.cpu() if isinstance(batch.targets, Tensor) else batch.targets
        for gathering, (run, read) in zip(found, files, strict=True):
            gathering.add(task.output(torch.from_numpy(run(read(batch.inputs)))), targets, teacher)
    return [one.judged() for one in found]
