"""All four students of `cifar10-tutorial`, ten epochs each, and its teacher's training: limbeck against plain loops.

Measured on a part: the first 2,560 training images, 20 batches. The plain loop reads them through torchvision's dataset
and a DataLoader, with the fp32 teacher online. limbeck asks the teacher once for each way of distilling and
trains from that; ten times an epoch and one asking make a student. The teacher's training is one epoch of both.
The data root holds CIFAR-10 as torchvision reads it, or train/ and test/ folders of images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import CIFAR10, ImageFolder

from benchmarks.turns import compared, in_turns, show, timed, untuned
from limbeck import Distiller, Hardware, fit
from limbeck.data import DataSet, make_loader
from limbeck.models import device_of
from limbeck.recipes import schema
from limbeck.recipes.read import read
from limbeck.runs import components, learners, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.keeping import keep
from limbeck.runs.settled import settled
from limbeck.runs.stages import assemble

SAMPLES, EPOCHS, ROUNDS = 2560, 10, 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METHODS = {"soft labels": "", "cosine": ":cosine", "regressor": ":regressor"}


def main(data_root: Path) -> dict[str, Any]:
    """Measure, print and return the seconds of ten epochs on the part, for each student and for the teacher."""
    folder = (data_root / "train").is_dir()
    recipe = read("cifar10-tutorial", ["data.name=image-folder"] if folder else [])
    data = components.data(recipe.data, data_root)
    data = replace(data, train=data.train.subset(torch.arange(SAMPLES)))
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    whole: Dataset[Any] = (
        ImageFolder(data_root / "train", transform) if folder else CIFAR10(data_root, train=True, transform=transform)
    )
    plain = DataLoader(Subset(whole, range(SAMPLES)), batch_size=128, shuffle=True)

    figures = measured(recipe, data, plain, Machine(accelerator="cpu", progress=False), ROUNDS)
    show(figures, f"on {SAMPLES:,} images")
    return figures


def measured(
    recipe: schema.Recipe, data: DataSet, plain: DataLoader[Any], machine: Machine, rounds: int
) -> dict[str, Any]:
    """The seconds of ten epochs of all students, of the teacher's epoch, and their ratios to the plain loop's."""
    students = in_turns({"plain loops": lambda: _plain_students(recipe, data, plain, machine),
                         "limbeck": lambda: _our_students(recipe, data, machine)}, rounds)  # fmt: skip
    training = in_turns({"plain loop, teacher": lambda: _plain_teacher(recipe, data, plain, machine),
                         "limbeck, teacher": lambda: _our_teacher(recipe, data, machine)}, rounds)  # fmt: skip
    return compared(students["seconds"] | training["seconds"]) | {
        "times_as_fast": students["times_as_fast"] | training["times_as_fast"],
        "samples": len(data.train),
    }


def _networks(recipe: schema.Recipe, data: DataSet, device: torch.device | str) -> list[nn.Module]:
    return [components.model(spec, data, 0).to(device) for spec in (recipe.teachers[0], recipe.student)]


@untuned()
def _plain_students(recipe: schema.Recipe, data: DataSet, loader: DataLoader[Any], machine: Machine) -> float:
    teacher, student = _networks(recipe, data, machine.accelerator)
    seconds = timed(lambda: _plain_epoch(copy.deepcopy(student), loader, None))
    for name in METHODS:
        seconds += timed(lambda: _plain_epoch(copy.deepcopy(student), loader, teacher, name))  # noqa: B023
    return EPOCHS * seconds


def _plain_epoch(student: nn.Module, loader: DataLoader[Any], teacher: nn.Module | None, method: str = "") -> None:
    """The tutorial's loop; hidden tensors by hooks."""
    device = device_of(student)
    regressor = nn.Conv2d(16, 32, 3, padding=1, device=device)
    optimizer = torch.optim.Adam([*student.parameters(), *regressor.parameters()], lr=1e-3)
    student.train()
    hidden: dict[str, Tensor] = {}
    place = {"cosine": "flatten", "regressor": "features"}.get(method)
    for role, network in (("student", student), ("teacher", teacher)):
        if place and network is not None:
            network.get_submodule(place).register_forward_hook(_keeper(hidden, role))
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        logits = student(x)
        loss = F.cross_entropy(logits, y)
        if teacher is not None:
            with torch.no_grad():
                said = teacher.eval()(x)
            loss = 0.75 * loss + 0.25 * _plain_term(method, logits, said, hidden, regressor)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _keeper(hidden: dict[str, Tensor], role: str) -> Callable[..., None]:
    def keep_it(module: nn.Module, inputs: Any, output: Tensor) -> None:
        hidden[role] = output

    return keep_it


def _plain_term(method: str, logits: Tensor, said: Tensor, hidden: dict[str, Tensor], regressor: nn.Module) -> Tensor:
    if method == "cosine":
        pooled = F.avg_pool1d(hidden["teacher"], 2)
        return F.cosine_embedding_loss(hidden["student"], pooled, logits.new_ones(len(logits)))
    if method == "regressor":
        return F.mse_loss(regressor(hidden["student"]), hidden["teacher"])
    soft = F.softmax(said / 2, dim=-1)
    return -4 * (soft * F.log_softmax(logits / 2, dim=-1)).sum() / len(logits)


def _our_students(recipe: schema.Recipe, data: DataSet, machine: Machine) -> float:
    student = _networks(recipe, data, "cpu")[1]
    found = teachers.candidates(recipe, data, machine)
    recipe = settled(recipe, student, data, machine)
    seconds = 0.0
    for variant in (None, *METHODS.values()):
        distill = recipe.distill if not variant else read(f"cifar10-tutorial{variant}").distill
        fabric = machine.fabric(recipe.precision)
        resolved, scheme, online = assemble(
            recipe.model_copy(update={"distill": distill}), copy.deepcopy(student), found, data
        )
        guide = None
        if variant is None:
            scheme = learners.alone(copy.deepcopy(student), recipe, data)
        elif online is not None:
            kept = keep(Asking(resolved, data, fabric, recipe.teachers[0].store), online)
            guide, seconds = kept.teacher, seconds + kept.seconds
        loader = make_loader(data.train, recipe.data.batch_size, shuffle=True, device=fabric.device)
        make, on = components.optimizer(recipe.optimizer), Hardware(fabric=fabric)
        seconds += EPOCHS * timed(
            lambda: fit(scheme, loader, teacher=guide, epochs=1, optimizer=make, hardware=on, progress=False)  # noqa: B023
        )
    return seconds


@untuned()
def _plain_teacher(recipe: schema.Recipe, data: DataSet, loader: DataLoader[Any], machine: Machine) -> float:
    teacher = _networks(recipe, data, machine.accelerator)[0]
    return timed(lambda: _plain_epoch(teacher, loader, None))


def _our_teacher(recipe: schema.Recipe, data: DataSet, machine: Machine) -> float:
    spec, size = recipe.teachers[0], recipe.data.batch_size
    teacher = _networks(recipe, data, "cpu")[0]
    fabric = machine.fabric(machine.precision("auto", teacher, components.example(spec, data), size))
    scheme = Distiller(teacher, inputs=components.inputs(spec))
    loader = make_loader(data.train, size, shuffle=True, device=fabric.device)
    make = components.optimizer(spec.optimizer)
    return timed(
        lambda: fit(scheme, loader, epochs=1, optimizer=make, hardware=Hardware(fabric=fabric), progress=False)
    )
