"""How cost grows with work: samples a second and peak memory against batch size, teacher size and number of methods.

Each point is a fresh process that distils small CNNs on made images of 3×32×32; peak memory is the high-water mark of
the resident set (VmHWM of /proc/self/status: Linux only), so it counts Python and torch too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from limbeck import Distiller, ModuleTeacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.engine.optimizers.named import optimizer
from limbeck.models import multiply_adds
from limbeck.models.build import build
from limbeck.teachers import CachedTeacher, Teacher

SAMPLES = 2048
SHAPE = (3, 32, 32)
STUDENT = (16, 32)
TEACHER = (64, 128, 128)
BATCHES = (16, 64, 256, 1024)
TEACHERS = ((16, 32, 32), (32, 64, 64), (64, 128, 128), (128, 256, 256))
METHODS = (1, 2, 4, 8)


def main() -> dict[str, Any]:
    """Measure, print and return rows of (what, value, teacher, samples a second, peak MB)."""
    work: dict[str, tuple[str, tuple[Any, ...]]] = {
        "batch size": ("batch", BATCHES),
        "teacher's multiply-adds": ("teacher", TEACHERS),
        "methods compared": ("methods", METHODS),
    }
    points = [
        (what, value, kind, {key: value})
        for what, (key, values) in work.items()
        for kind in ("online", "stored")
        for value in values
    ]
    rows = []
    for what, value, kind, changes in points:
        asked = json.dumps({"kind": kind, "batch": 64, "teacher": TEACHER, "methods": 1} | changes)
        command = [sys.executable, "-m", "benchmarks.growth", asked]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        shown = measured["multiply_adds"] if what.startswith("teacher") else value
        row = {"what": what, "value": shown, "teacher": kind}
        rows.append(row | {key: measured[key] for key in ("samples_a_second", "peak_megabytes")})
        speed, peak = measured["samples_a_second"], measured["peak_megabytes"]
        print(f"{what:24} {shown!s:>12} {kind:7} {speed:9,.0f} samples/s {peak:7,.0f} MB")
    return {"rows": rows, "samples": SAMPLES}


def point(kind: str, batch: int, teacher: list[int], methods: int) -> dict[str, Any]:
    """One measurement in this process: an epoch for each of so many methods, the teacher asked as `kind` says."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (SAMPLES, *SHAPE), dtype=torch.uint8)
    split = InMemory(pixels, torch.arange(SAMPLES) % 10)
    network = build("cnn", input_shape=SHAPE, classes=10, channels=teacher)
    online = ModuleTeacher(network)
    _epoch(online, InMemory(pixels[: 2 * batch], split.targets[: 2 * batch]), batch)  # to warm up
    began = time.perf_counter()
    guide: Teacher = online
    if kind == "stored":
        guide = CachedTeacher(online, [make_loader(split, batch)], SAMPLES)
    for _ in range(methods):
        _epoch(guide, split, batch)
    seconds = time.perf_counter() - began
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "samples_a_second": methods * SAMPLES / seconds,
        "peak_megabytes": int(high.split()[1]) / 1024,
        "multiply_adds": multiply_adds(network, torch.zeros(1, *SHAPE)),
    }


def _epoch(guide: Teacher, split: InMemory, batch: int) -> None:
    scheme = Distiller(build("cnn", input_shape=SHAPE, classes=10, channels=STUDENT), [Term(losses.kd, weight=0.9)])
    loader = make_loader(split, batch, shuffle=True)
    fit(scheme, loader, teacher=guide, epochs=1, optimizer=optimizer("adam", lr=1e-3), progress=False)


if __name__ == "__main__":
    print(json.dumps(point(**json.loads(sys.argv[1]))))
