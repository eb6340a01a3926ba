"""Twenty distilled epochs of `mnist-mlp`: limbeck against a plain loop, a tuned one, and torchdistill.

All train the same networks on all 60,000 images in batches of 32; one epoch of each is measured. The plain loop reads
torchvision's dataset through a DataLoader, with an online teacher. The hand-tuned loop has everything
that can be had without changing the result: images as floats in memory, the teacher's softened probabilities computed
once, a fused optimizer, no metrics. limbeck is measured as `limbeck run` does it, and with an online teacher. Where
teacher outputs are precomputed, an epoch pays a twentieth of that pass. torchdistill takes part where it is installed,
with the plain loop's dataset. The teacher is not trained: that changes no time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks import torchdistill_box
from benchmarks.turns import in_turns, show, timed, untuned
from limbeck import Hardware, ModuleTeacher, Teacher, fit
from limbeck.data import DataSet, InMemory, make_loader
from limbeck.models import device_of
from limbeck.recipes.read import read
from limbeck.runs import components, learners, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.keeping import keep

ROUNDS = 9
EPOCHS = 20


def main(data_root: Path) -> dict[str, Any]:
    """Measure, print and return the seconds of an epoch and their ratios."""
    data = components.data(read("mnist-mlp").data, data_root)
    figures = measured(data, MNIST(data_root, train=True, transform=transforms.ToTensor()), "cpu", ROUNDS)
    show(figures, "an epoch")
    return figures


def measured(data: DataSet, images: Dataset[Any], device: str, rounds: int) -> dict[str, Any]:
    """The seconds of an epoch on the device, and their ratios; the plain loop reads `images`, the same samples."""
    recipe = read("mnist-mlp")
    teacher, student = (components.model(spec, data, 0).to(device) for spec in (recipe.teachers[0], recipe.student))
    plain_loader = DataLoader(images, batch_size=recipe.data.batch_size, shuffle=True)
    machine = Machine(accelerator=device)
    fabric, spec = machine.fabric("32-true"), recipe.teachers[0]
    loader = make_loader(data.train, recipe.data.batch_size, shuffle=True, device=fabric.device)
    asked = teachers.Candidate(teachers.settled(spec, teacher, data, recipe, machine), "teacher", teacher)

    def ours(guide: Teacher) -> None:
        distiller = learners.scheme(copy.deepcopy(student), recipe, data)
        make = components.optimizer(recipe.optimizer)
        fit(
            distiller, loader, teacher=guide, epochs=1, optimizer=make, hardware=Hardware(fabric=fabric), progress=False
        )

    def as_run() -> float:
        kept = keep(Asking(recipe, data, fabric, spec.store), teachers.as_one([asked]))
        return timed(lambda: ours(kept.teacher)) + kept.seconds / EPOCHS

    contenders: dict[str, Callable[[], float]] = {
        "plain loop": lambda: timed(lambda: plain_epoch(teacher, copy.deepcopy(student), plain_loader)),
        "limbeck, online teacher": lambda: timed(lambda: ours(ModuleTeacher(teacher))),
        "limbeck run": as_run,
        "hand-tuned loop": lambda: tuned_epoch(teacher, copy.deepcopy(student), data),
    }
    if device == "cpu" and torchdistill_box.installed():
        batch_size = recipe.data.batch_size
        peer = torchdistill_box.epoch
        contenders["torchdistill"] = lambda: timed(lambda: peer(teacher, copy.deepcopy(student), images, batch_size))
    elif device == "cpu":
        print("torchdistill is not installed, and left out")
    return in_turns(contenders, rounds)


@untuned()
def plain_epoch(teacher: nn.Module, student: nn.Module, loader: DataLoader[Any]) -> None:
    """0.3 · cross-entropy + 0.7 · KL at temperature 7, Adam, one epoch."""
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    teacher.eval()
    student.train()
    device = device_of(student)
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        with torch.no_grad():
            soft = F.softmax(teacher(x) / 7, dim=1)
        logits = student(x)
        distilled = F.kl_div(F.log_softmax(logits / 7, dim=1), soft, reduction="batchmean")
        loss = 0.3 * F.cross_entropy(logits, y) + 0.7 * distilled
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def tuned_epoch(teacher: nn.Module, student: nn.Module, data: DataSet) -> float:
    """The same, as fast as it can be written by hand; the seconds, with its share of the teacher's pass."""
    assert isinstance(data.train, InMemory)
    device = device_of(student)
    x, y = data.train.tensor.to(device).float() / 255, data.train.targets.to(device)
    soft = torch.empty(len(y), 10, device=device)

    @torch.no_grad()
    def ask() -> None:
        teacher.eval()
        for i in range(0, len(y), 500):
            soft[i : i + 500] = F.softmax(teacher(x[i : i + 500]) / 7, dim=1)

    def train() -> None:
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-4, fused=True)
        student.train()
        for index in torch.randperm(len(y), device=device).split(32):  # type: ignore[no-untyped-call]
            logits = student(x[index])
            distilled = F.kl_div(F.log_softmax(logits / 7, dim=1), soft[index], reduction="batchmean")
            loss = 0.3 * F.cross_entropy(logits, y[index]) + 0.7 * distilled
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return timed(train) + timed(ask) / EPOCHS
