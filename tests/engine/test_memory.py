"""Memory stays flat: epochs hold nothing of the epochs before them."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck import Batch, Distiller, ModuleTeacher, Step, TeacherOutput, Term, fit, losses
from limbeck.data import InMemory, make_loader, make_views
from limbeck.teachers import CachedTeacher

FIRST, LAST = 3, 7
"""The epochs that are compared; before, memory may grow."""


class Watched(Distiller):
    """Notes the resident set, and the number of living tensors, at the start of two epochs."""

    def at(self, epoch: int) -> None:
        super().at(epoch)
        if epoch in (FIRST, LAST):  # to count all objects takes a second where all tests have been imported
            gc.collect()
            tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
            self.seen = [*getattr(self, "seen", []), (resident(), tensors)]

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        return super().forward(batch, teacher_output)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("kept", [False, True], ids=["online", "cached"])
def test_memory_stays_flat_over_epochs(tmp_path: Path, kept: bool) -> None:
    split = InMemory(torch.randint(0, 256, (1000, 3, 16, 16), dtype=torch.uint8), torch.arange(1000) % 10)
    views = make_views(["crop", "flip"], count=2)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    teacher = ModuleTeacher(network)
    loader = make_loader(split, 50, shuffle=True, views=views)
    if kept:
        asked = [make_loader(split, 50, views=views) for _ in range(2)]
        for view, one in enumerate(asked):
            one.set_epoch(view)
        guide = CachedTeacher(teacher, asked, 1000, 2)
    else:
        guide = teacher
    student = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 10))
    scheme = Watched(student, [Term(losses.kd, weight=0.9)])
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    fit(scheme, loader, teacher=guide, epochs=LAST + 1, optimizer=optimizer, out=tmp_path, progress=False)
    (size, tensors), (last_size, last_tensors) = scheme.seen
    assert last_size - size < 8 * 2**20  # the inputs of an epoch are 3 MiB
    assert last_tensors == tensors
