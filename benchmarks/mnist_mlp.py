"""One distilled epoch of `mnist-mlp`: limbeck against a plain loop as the tutorials write it, in turns.

All train the same networks on all 60,000 images in batches of 32. The plain loop reads torchvision's dataset through a
DataLoader, with the teacher live at every step. limbeck is measured with a live teacher, and as `limbeck run` does it:
the teacher is asked once about every image, and the epoch bears its share of that, a twentieth of it in a run of 20
epochs. The teacher is not trained: that changes no time.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from limbeck import ModuleTeacher, Teacher, fit
from limbeck.data import make_loader
from limbeck.engine import make_fabric
from limbeck.recipes import build
from limbeck.recipes.job import Job
from limbeck.recipes.machine import Machine
from limbeck.recipes.read import read

ROUNDS = 5


def main(data_root: Path) -> dict[str, Any]:
    """Measure, print and return the seconds of an epoch and their ratio."""
    recipe = read("mnist-mlp")
    data = build.data(recipe.data, data_root)
    teacher, student = build.model(recipe.teachers[0], data, 0), build.model(recipe.student, data, 0)
    images = MNIST(data_root, train=True, transform=transforms.ToTensor())
    plain_loader = DataLoader(images, batch_size=recipe.data.batch_size, shuffle=True)
    loader = make_loader(data.train, recipe.data.batch_size, shuffle=True)

    live = ModuleTeacher(teacher)
    fabric = make_fabric(accelerator="cpu")

    def ours(guide: Teacher) -> None:
        distiller = build.scheme(copy.deepcopy(student), recipe, data)
        make = build.optimizer(recipe.optimizer)
        fit(distiller, loader, teacher=guide, epochs=1, optimizer=make, fabric=fabric, progress=False)

    seconds: dict[str, list[float]] = {"plain loop": [], "limbeck, live teacher": [], "limbeck run": []}
    for _ in range(ROUNDS):
        seconds["plain loop"].append(_timed(lambda: plain_epoch(teacher, copy.deepcopy(student), plain_loader)))
        seconds["limbeck, live teacher"].append(_timed(lambda: ours(live)))
        job = Job(recipe, data, Machine(), fabric, Path())
        remembered, asking = job.ask_once(live)
        seconds["limbeck run"].append(_timed(lambda: ours(remembered)) + asking / recipe.epochs)  # noqa: B023
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["plain loop"], values, strict=True))
        for name, values in seconds.items()
    }
    for name, values in seconds.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"{name:22} {statistics.median(values):5.2f} s an epoch ({spread})   {ratios[name]:.2f} times as fast")
    return {"seconds": seconds, "times_as_fast": ratios}


def plain_epoch(teacher: nn.Module, student: nn.Module, loader: DataLoader[Any]) -> None:
    """0.3 · cross-entropy + 0.7 · KL at temperature 7, Adam, one epoch."""
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    teacher.eval()
    student.train()
    for x, y in loader:
        with torch.no_grad():
            soft = F.softmax(teacher(x) / 7, dim=1)
        logits = student(x)
        distilled = F.kl_div(F.log_softmax(logits / 7, dim=1), soft, reduction="batchmean")
        loss = 0.3 * F.cross_entropy(logits, y) + 0.7 * distilled
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
