"""resnet32x4 teaches resnet8x4, a pair of the field's tables: images a second, limbeck against a loop tuned by hand.

Made images of 3×32×32, which lie on the device; kd at temperature 4, SGD. The teacher answers at every step or was
asked before (which is not counted); the student runs as it is, compiled, and on a GPU with CUDA graphs too. The tuned
loop has what can be had without changing the result: floats instead of bytes, channels-last, the same precision, a
fused optimizer, no metrics. Of each training the epochs after the first are measured, so compiling is not.

On a GPU the share of the time in which it waits is 1 − busy / wall: busy is how long a kernel or a copy runs, by
torch.profiler in a training of its own, for a traced loop is slower; wall is what as many steps take untraced.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.turns import in_turns
from benchmarks.watch import Watch
from limbeck import Distiller, Hardware, ModuleTeacher, Teacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.devices.compiling import REPLAYED
from limbeck.engine.devices.fabric import choose_precision, make_fabric
from limbeck.models import Preprocess
from limbeck.models.networks.resnet_cifar import resnet8x4, resnet32x4
from limbeck.teachers import CachedTeacher

BATCHES, EPOCHS, ROUNDS = (64, 512), 3, 3
TRACED = 40
"""Steps of an epoch that is traced."""
SHAPE, MEAN, STD = (3, 32, 32), (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
Builder = Callable[..., nn.Module]
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)


def main() -> dict[str, Any]:
    """Measure, print and return rows of images a second."""
    gpu = torch.cuda.is_available()
    pair = Pair.made(samples=51200 if gpu else 1024)
    modes = (None, "default", "reduce-overhead") if gpu else (None, "default")
    rows = []
    for batch in BATCHES:
        for kind in ("online", "stored"):
            for mode in modes:
                row = {"batch": batch, "teacher": kind, "compile": mode} | measured(pair, batch, kind == "online", mode)
                rows.append(row)
                speeds = f"limbeck {row['limbeck']:9,.0f} images/s, tuned loop {row['tuned']:9,.0f}"
                print(f"batch {batch:3} {kind:6} {mode!s:16} {speeds}, ratio {row['ratio']:.2f}", flush=True)
    return {"rows": rows, "samples": len(pair.labels), "precision": pair.precision}


@dataclass(frozen=True)
class Pair:
    """Both networks and the images, on the device."""

    teacher: nn.Module
    student: nn.Module
    pixels: Tensor
    labels: Tensor
    precision: str

    @classmethod
    def made(cls, samples: int, builders: Sequence[Builder] = (resnet32x4, resnet8x4)) -> Pair:
        """Networks, teacher and student, as they are initialised, and noise."""
        torch.manual_seed(0)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        teacher, student = (make(input_shape=SHAPE, classes=100).to(device) for make in builders)
        pixels = torch.randint(0, 256, (samples, *SHAPE), dtype=torch.uint8, device=device)
        labels = torch.arange(samples, device=device) % 100
        example = torch.zeros(1, *SHAPE, device=device)
        return cls(teacher, student, pixels, labels, choose_precision(student, example, min(BATCHES)))

    def part(self, samples: int) -> Pair:
        """The same with the first images alone."""
        return replace(self, pixels=self.pixels[:samples], labels=self.labels[:samples])

    @property
    def dtype(self) -> torch.dtype | None:
        """In which the teacher computes."""
        return torch.bfloat16 if self.precision == "bf16-mixed" else None


def measured(pair: Pair, batch: int, online: bool, mode: str | None, rounds: int = ROUNDS) -> dict[str, Any]:
    """Images a second of both and their ratio; on a GPU its peak memory in bytes, and the share of time it waits."""
    loops: dict[str, Loop] = {"tuned": _tuned, "limbeck": _ours}

    def watched(name: str, some: Pair = pair, *, traced: bool = False) -> Watch:
        watch = Watch(some.labels.device, EPOCHS, traced=traced)
        loops[name](some, batch, online, mode, watch)
        return watch

    def seconds(name: str) -> float:
        return watched(name).seconds

    torch.compiler.reset()
    peaks = {name: watched(name).peak for name in loops}  # to warm up
    figures = in_turns({name: partial(seconds, name) for name in loops}, rounds)
    medians = {name: statistics.median(values) for name, values in figures["seconds"].items()}
    images = (EPOCHS - 1) * len(pair.labels)
    row: dict[str, Any] = {name: images / taken for name, taken in medians.items()}
    row["ratio"] = figures["times_as_fast"]["limbeck"]
    if pair.labels.is_cuda:
        few = pair.part(TRACED * batch)
        busy = {name: watched(name, few, traced=True).busy for name in loops}
        share = len(pair.labels) / len(few.labels)
        waits = {name: took and max(0.0, 1 - share * took / medians[name]) for name, took in busy.items()}
        row["waits"] = waits
        if mode not in REPLAYED:  # recorded graphs keep their memory, and so would count for the next contender too
            row["peak_bytes"] = peaks
    return row


def _ours(pair: Pair, batch: int, online: bool, mode: str | None, watch: Watch) -> None:
    fabric, normalise = make_fabric(pair.precision), Preprocess(MEAN, STD)
    split = InMemory(pair.pixels, pair.labels)
    teacher: Teacher = ModuleTeacher(pair.teacher, dtype=pair.dtype, inputs=normalise)
    if not online:
        asked = make_loader(split, batch, device=fabric.device)
        teacher = CachedTeacher(teacher, [asked], len(split))
    scheme = Distiller(copy.deepcopy(pair.student), [Term(losses.kd, weight=0.9)], task_weight=0.1, inputs=normalise)
    loader = make_loader(split, batch, shuffle=True, device=fabric.device)
    options: dict[str, Any] = {
        "optimizer": SGD,
        "hardware": Hardware(fabric=fabric, compile=mode),
        "callbacks": [watch],
    }
    fit(scheme, loader, teacher=teacher, epochs=EPOCHS, progress=False, **options)


def _tuned(pair: Pair, batch: int, online: bool, mode: str | None, watch: Watch) -> None:
    device = pair.labels.device
    student, teacher = (
        copy.deepcopy(network).to(memory_format=torch.channels_last)
        for network in (pair.student.train(), pair.teacher.eval())
    )
    teacher.to(pair.dtype)
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (MEAN, STD))
    images = (pair.pixels.float() / 255 - mean).div_(std).contiguous(memory_format=torch.channels_last)
    half = torch.autocast(device.type, torch.bfloat16, enabled=pair.dtype is not None)
    run, optimizer = torch.compile(student, mode=mode, dynamic=False) if mode else student, SGD(student.parameters())

    @torch.no_grad()
    def ask(x: Tensor) -> Tensor:
        said: Tensor = teacher(x if pair.dtype is None else x.to(pair.dtype))
        return said.float()

    table = None if online else torch.cat([ask(x) for x in images.split(batch)])  # type: ignore[no-untyped-call]
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(images), device=device).split(batch):  # type: ignore[no-untyped-call]
            x, y = images[index], pair.labels[index]
            soft = F.softmax((ask(x) if table is None else table[index]) / 4, 1)
            with half:
                logits = run(x)
            logits = logits.float()
            distilled = F.kl_div(F.log_softmax(logits / 4, 1), soft, reduction="batchmean") * 16
            (0.1 * F.cross_entropy(logits, y) + 0.9 * distilled).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        watch.epoch(epoch + 1)


Loop = Callable[[Pair, int, bool, str | None, Watch], None]
