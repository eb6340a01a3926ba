"""Three distilled epochs of `mnist-cnn`, the teacher's pass included: limbeck, Keras's `Distiller`, a plain loop.

limbeck is measured in full: asking the teacher about 60,000 images, then 5,625 steps. The plain loop (torchvision's
dataset, a DataLoader, the fp32 teacher online) and Keras on each of its backends are measured on `STEPS` steps after a
warm-up, and extrapolated to 5,625; the data of Keras lies in memory. Backends that are not installed beside limbeck run
in the interpreter that LIMBECK_PEER_PYTHON names, each in a process of its own, in turns with the others.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks.turns import in_turns, show, timed, untuned
from limbeck import Hardware, fit
from limbeck.data import InMemory, make_loader
from limbeck.recipes.read import read
from limbeck.runs import components, learners, teachers
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.keeping import keep
from limbeck.runs.settled import settled

EPOCHS, STEPS, WARM, ROUNDS = 3, 150, 50, 3
ALL_STEPS = EPOCHS * 1875
BACKENDS = ("tensorflow", "jax", "torch")


def main(data_root: Path) -> dict[str, Any]:
    """Measure, print and return the seconds of three epochs and their ratios to the first."""
    recipe, machine = read("mnist-cnn"), Machine(progress=False)
    data = components.data(recipe.data, data_root)
    assert isinstance(data.train, InMemory)
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, 0)
    recipe = settled(recipe, student, data, machine)
    fabric = machine.fabric(recipe.precision)
    images = MNIST(data_root, train=True, transform=transforms.ToTensor())
    loader = make_loader(data.train, recipe.data.batch_size, shuffle=True)

    def ours() -> float:
        scheme = learners.scheme(copy.deepcopy(student), recipe, data)
        kept = keep(Asking(recipe, data, fabric, recipe.teachers[0].store), teachers.as_one(found))
        make = components.optimizer(recipe.optimizer)
        options: dict[str, Any] = {"optimizer": make, "hardware": Hardware(fabric=fabric), "progress": False}
        return kept.seconds + timed(lambda: fit(scheme, loader, teacher=kept.teacher, epochs=EPOCHS, **options))

    plain_loader = DataLoader(images, batch_size=32, shuffle=True)
    contenders: dict[str, Callable[[], float]] = {
        "plain loop": lambda: _plain(found[0].module, copy.deepcopy(student), plain_loader),
        "limbeck": ours,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mnist.npz"
        pixels = data.train.tensor.permute(0, 2, 3, 1).numpy().astype(np.float32) / 255
        np.savez(path, x=pixels, y=data.train.targets.numpy())
        for backend in BACKENDS:
            python = _python_of(backend)
            if python:
                contenders[f"Keras on {backend}"] = _keras(python, backend, path)
            else:
                print(f"Keras on {backend} is not installed; LIMBECK_PEER_PYTHON names an interpreter that has it")
        figures = in_turns(contenders, ROUNDS)
    show(figures, f"for {EPOCHS} epochs")
    return figures | {"steps_measured": STEPS, "steps": ALL_STEPS}


@untuned()
def _plain(teacher: nn.Module, student: nn.Module, loader: DataLoader[Any]) -> float:
    """0.1 · cross-entropy + 0.9 · T² · KL at temperature 10, Adam; the seconds of three epochs."""
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    teacher.eval()
    student.train()

    def train(batches: Any) -> None:
        for x, y in batches:
            with torch.no_grad():
                soft = F.softmax(teacher(x) / 10, dim=1)
            logits = student(x)
            distilled = F.kl_div(F.log_softmax(logits / 10, dim=1), soft, reduction="batchmean")
            loss = 0.1 * F.cross_entropy(logits, y) + 0.9 * 100 * distilled
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    batches = iter(loader)
    train(islice(batches, WARM))
    return timed(lambda: train(islice(batches, STEPS))) / STEPS * ALL_STEPS


def _keras(python: str, backend: str, path: Path) -> Callable[[], float]:
    script = Path(__file__).parent / "keras_distiller.py"

    def measure() -> float:
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [python, str(script), str(path), str(STEPS)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1])["seconds_a_step"]) * ALL_STEPS

    return measure


def _python_of(backend: str) -> str | None:
    """An interpreter that has Keras and this backend."""
    for python in (sys.executable, os.environ.get("LIMBECK_PEER_PYTHON")):
        ask = [python or "", "-c", f"import keras, {backend}"]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        if python and subprocess.run(ask, env=environment, capture_output=True, check=False).returncode == 0:
            return python
    return None
