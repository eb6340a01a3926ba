"""Memory over many epochs: a line through the resident set and the living objects, with its standard error.

A process for each way in which a teacher answers. The numbers of living tensors and of other objects must not grow at
all. The resident set's slope must be 0 within its noise, or below a page (4 KiB) an epoch: allocators take and leave
pages in steps, which the standard error, made for independent noise, understates; and each epoch's record, which
`Run.metrics` keeps, takes about 0.8 KiB.
"""

from __future__ import annotations

import gc
import os
import statistics
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.faults.forked import Place, fork
from benchmarks.faults.rows import Row
from limbeck import Distiller, Hardware, ModuleTeacher, Term, fit, losses
from limbeck.data import InMemory, make_loader, make_views
from limbeck.teachers import RememberedTeacher, StoredTeacher, Teacher
from limbeck.teachers.coding import Coding
from limbeck.teachers.stored import store
from limbeck.types import Batch

WARM = 100
BOUND = 4096
KINDS = ("live", "memory", "stored")
SAMPLES, BATCH, VIEWS = 256, 64, 2


class Watched(Distiller):
    """Notes the resident set, and the numbers of living objects and tensors, at the start of each epoch.

    In arrays that are there before, so that the notes take no memory.
    """

    seen: list[array[int]]

    def at(self, epoch: int) -> None:
        super().at(epoch)
        gc.collect()
        living = gc.get_objects()
        tensors = sum(issubclass(type(one), torch.Tensor) for one in living)
        size = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for what, number in enumerate((size, len(living), tensors)):
            self.seen[what][epoch] = number


def flat(place: Place, kind: str, epochs: int, seed: int) -> Row:
    """Train for so many epochs in a process of its own, and look whether anything grows."""
    row = Row(
        f"memory over {epochs} epochs, teacher {kind}",
        "resident set: slope 0 within noise or under 4 KiB an epoch; no object or tensor more",
    )
    if not Path("/proc/self/statm").exists():
        row.note = "skipped: no /proc/self/statm"
        return row
    seen = fork(place, partial(watch, kind, epochs, seed, place.work))()
    warm = min(WARM, epochs // 2)
    (slope, error), (more, _), (tensors, _) = (line(values[warm:]) for values in seen)
    faults = [] if slope <= max(2 * error, BOUND) else [f"the resident set grows by {slope:.0f} bytes an epoch"]
    faults += [f"{more:.2f} objects more an epoch"] if more > 0.01 else []
    faults += [f"{tensors:.2f} tensors more an epoch"] if tensors > 0.01 else []
    row.add(kind, faults)
    row.note = f"{slope:+.0f} ± {error:.0f} bytes, {more:+.2f} objects, {tensors:+.2f} tensors an epoch"
    return row


def line(values: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line through values at 0, 1, 2, …, and its standard error."""
    places = range(len(values))
    slope, offset = statistics.linear_regression(places, values)
    rest = sum((value - offset - slope * place) ** 2 for place, value in enumerate(values)) / (len(values) - 2)
    spread = sum((place - statistics.mean(places)) ** 2 for place in places)
    return slope, (rest / spread) ** 0.5


def watch(kind: str, epochs: int, seed: int, out: Path) -> list[list[int]]:
    """One training in this process: at each epoch the resident set, the living objects and the tensors."""
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


def _teacher(kind: str, live: Teacher, split: InMemory, views: Any, out: Path) -> Teacher:
    def batches(view: int, start: int = 0, stop: int = SAMPLES) -> list[Batch]:
        loader = make_loader(split, BATCH, views=views)
        loader.set_epoch(view)
        return [batch for batch in loader if start <= int(batch.index[0]) < stop]

    if kind == "memory":
        return RememberedTeacher(live, (batches(view) for view in range(VIEWS)), SAMPLES, VIEWS)
    if kind == "stored":
        made_of = {"teacher": "made"}
        store(live, batches, out / "store", samples=SAMPLES, views=VIEWS, batch_size=BATCH, made_of=made_of,
              coding=Coding("float32"))  # fmt: skip
        return StoredTeacher(out / "store", made_of)
    return live
