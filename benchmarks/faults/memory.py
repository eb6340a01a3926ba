"""Memory over many epochs: how much a process's own memory and the living objects grow in an epoch.

A process for each way in which a teacher answers. The numbers of living tensors and of other objects must not grow at
all. The memory is what the process has for itself, in memory or swapped out: pages of libraries and files, of which a
system under load takes some away and brings them back, are not counted. Of its growth over stretches of ten epochs the
median must be below a page (4 KiB) an epoch: each epoch's record, which `Run.metrics` keeps, takes about 1.5 KiB.
Allocators also take memory in rare large steps, which the median leaves out: from the first epoch that counts to the
last it may grow by 1 MiB in all.
"""

from __future__ import annotations

import gc
import statistics
from array import array
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.faults.forked import Place, fork
from benchmarks.faults.rows import Row
from limbeck import Distiller, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.data import InMemory, make_loader, make_views
from limbeck.teachers import CachedTeacher, StoredTeacher, Teacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.stored import store
from limbeck.types import Batch

STATUS = Path("/proc/self/status")
WARM = 100
BOUND, STEPS, STRETCH = 4096, 2**20, 10
KINDS = ("online", "memory", "stored")
SAMPLES, BATCH, VIEWS = 256, 64, 2


class Watched(Distiller):
    """Notes the process's own memory, and the numbers of living objects and tensors, at the start of each epoch.

    In arrays that are there before, so that the notes take no memory.
    """

    seen: list[array[int]]

    def at(self, epoch: int) -> None:
        super().at(epoch)
        gc.collect()
        living = gc.get_objects()
        tensors = sum(issubclass(type(one), torch.Tensor) for one in living)
        for what, number in enumerate((_own_bytes(), len(living), tensors)):
            self.seen[what][epoch] = number


def flat(place: Place, kind: str, epochs: int, seed: int) -> Row:
    """Train for so many epochs in a process of its own, and look whether anything grows."""
    row = Row(
        f"memory over {epochs} epochs, teacher {kind}",
        "own memory: slope under 4 KiB an epoch, and 1 MiB in all; no object or tensor more",
    )
    if not STATUS.exists():
        row.note = f"skipped: no {STATUS}"
        return row
    seen = fork(place, partial(watch, kind, epochs, seed, place.work))()
    warm = min(WARM, epochs // 2)
    slope, error = pace(seen[0][warm:])
    more, tensors = ((values[-1] - values[warm]) / (len(values) - 1 - warm) for values in seen[1:])
    grown = seen[0][-1] - seen[0][warm]
    faults = [f"it grows by {slope:.0f} bytes an epoch"] if slope > BOUND else []
    faults += [f"it grew by {grown:,} bytes in all"] if grown > STEPS else []
    faults += [f"{more:.2f} objects more an epoch"] if more > 0.01 else []
    faults += [f"{tensors:.2f} tensors more an epoch"] if tensors > 0.01 else []
    row.add(kind, faults)
    row.note = f"{slope:+.0f} ± {error:.0f} bytes, {more:+.2f} objects, {tensors:+.2f} tensors an epoch"
    return row


def _own_bytes() -> int:
    """Anonymous memory of this process, resident or swapped out."""
    lines = dict(one.split(":", 1) for one in STATUS.read_text().splitlines())
    return sum(1024 * int(lines[name].split()[0]) for name in ("RssAnon", "VmSwap"))


def pace(values: Sequence[float]) -> tuple[float, float]:
    """How much values grow from one to the next: the median over stretches of ten, and half the interquartile range."""
    ends = values[::STRETCH]
    found = [(end - begin) / STRETCH for begin, end in pairwise(ends)]
    low, middle, high = statistics.quantiles(found, n=4)
    return middle, (high - low) / 2


def watch(kind: str, epochs: int, seed: int, out: Path) -> list[list[int]]:
    """One training in this process: at each epoch its own memory, the living objects and the tensors."""
    torch.manual_seed(seed)
    gc.freeze()  # what is there already is not counted
    views = make_views(["crop", "flip"], count=VIEWS)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    pixels = torch.randint(0, 256, (SAMPLES, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        split = InMemory(pixels, network(pixels / 255).argmax(1))  # so that the teacher is right
    student = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 10))
    scheme = Watched(student, [Term(losses.kd, weight=0.9)])
    scheme.seen = [array("q", bytes(8 * epochs)) for _ in range(3)]
    fit(
        scheme,
        make_loader(split, BATCH, shuffle=True, views=views),
        teacher=_teacher(kind, ModuleTeacher(network), split, views, out),
        val=make_loader(split, BATCH),
        keep="best",
        epochs=epochs,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        out=out / "run",
        progress=False,
        hardware=Hardware("cpu"),
    )
    return [list(values) for values in scheme.seen]


def _teacher(kind: str, online: Teacher, split: InMemory, views: Any, out: Path) -> Teacher:
    def batches(view: int, start: int = 0, stop: int = SAMPLES) -> list[Batch]:
        loader = make_loader(split, BATCH, views=views)
        loader.set_epoch(view)
        return [batch for batch in loader if start <= int(batch.index[0]) < stop]

    if kind == "memory":
        return CachedTeacher(online, (batches(view) for view in range(VIEWS)), SAMPLES, VIEWS)
    if kind == "stored":
        made_of = {"teacher": "made"}
        store(online, batches, out / "store", samples=SAMPLES, views=VIEWS, batch_size=BATCH, made_of=made_of,
              coding=Coding("float32"))  # fmt: skip
        return StoredTeacher(out / "store", made_of)
    return online
