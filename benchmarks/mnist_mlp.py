"""One distilled epoch of `mnist-mlp`: limbeck against a plain loop as the tutorials write it, in turns.

Both train the same networks on all 60,000 images in batches of 32, with the teacher live at every step. The plain
loop reads torchvision's dataset through a DataLoader. The teacher is not trained: that changes no time.
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

from limbeck import fit
from limbeck.data import make_loader
from limbeck.recipes import build
from limbeck.recipes.read import read

ROUNDS = 3


def main(data_root: Path) -> dict[str, Any]:
    """Measure, print and return the seconds of an epoch and their ratio."""
    recipe = read("mnist-mlp")
    data = build.data(recipe.data, data_root)
    teacher, student = build.model(recipe.teachers[0], data, 0), build.model(recipe.student, data, 0)
    images = MNIST(data_root, train=True, transform=transforms.ToTensor())
    plain_loader = DataLoader(images, batch_size=recipe.data.batch_size, shuffle=True)
    loader = make_loader(data.train, recipe.data.batch_size, shuffle=True)

    def ours() -> None:
        distiller = build.distiller(copy.deepcopy(student), recipe)
        make = build.optimizer(recipe.optimizer)
        fit(distiller, loader, teacher=teacher, epochs=1, optimizer=make, accelerator="cpu", progress=False)

    seconds: dict[str, list[float]] = {"plain": [], "limbeck": []}
    for _ in range(ROUNDS):
        seconds["plain"].append(_timed(lambda: plain_epoch(teacher, copy.deepcopy(student), plain_loader)))
        seconds["limbeck"].append(_timed(ours))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["limbeck"], strict=True)]
    for name, values in seconds.items():
        print(f"{name:8} {median[name]:6.2f} s an epoch   (of {ROUNDS}: {min(values):.2f} to {max(values):.2f})")
    print(f"limbeck is {statistics.median(ratios):.2f} times as fast (pairs: {min(ratios):.2f} to {max(ratios):.2f})")
    return {"seconds": seconds, "median": median, "ratios": ratios, "ratio": statistics.median(ratios)}


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
        loss.backward()
        optimizer.step()


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
