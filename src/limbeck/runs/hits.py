"""Which test samples a student gets right: kept in its folder, for errors that come from the choice of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from limbeck.engine.saving.files import write_safetensors
from limbeck.tasks import Task
from limbeck.tasks.classification import counts_samples
from limbeck.types import Targets

FILE = "test_hits.safetensors"
CHOSEN = ""
"""The prediction that the student is chosen by, as `read` names it."""
_CHOSEN = "student"


def scored(task: Task, samples: int) -> int:
    """How many samples a task's monitor calls right or wrong as a whole: all of them, or none.

    Accuracies come in steps of one of these. Of tokens or pixels a step is smaller, and its size is not known here.
    """
    return samples if counts_samples(task) else 0


class Hits:
    """Collects, of one look at the test set, which labelled samples each prediction gets right.

    Of classification by accuracy alone: other scores are no means over samples.
    """

    def __init__(self, task: Task, chosen: str) -> None:
        self._task = task if counts_samples(task) else None
        self._chosen = chosen
        self._found: dict[str, list[Tensor]] = {}

    def hear(self, name: str, output: Tensor, targets: Targets) -> None:
        """Note a prediction about the next samples."""
        if self._task is not None:
            right, known = self._task.score(output, targets)
            self._found.setdefault(name, []).append(right[known].cpu())

    def write(self, folder: Path) -> None:
        """Write them into a student's folder."""
        whole = {name: torch.cat(some) for name, some in self._found.items()}
        if whole:
            chosen = {_CHOSEN: whole[self._chosen]}
            each = {f"{_CHOSEN}/{name}": hits for name, hits in whole.items()} if len(whole) > 1 else {}
            write_safetensors(folder / FILE, {**chosen, **each})


def read(folder: Path) -> Mapping[str, NDArray[np.bool_]]:
    """For each prediction (N,) what a student's folder holds; `CHOSEN` is the student's own; empty without a file."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        content = load_file(path)
    except (OSError, SafetensorError):  # a damaged one: the error of the test samples is then not known
        return {}
    return {name.removeprefix(_CHOSEN).removeprefix("/"): hits for name, hits in content.items()}
