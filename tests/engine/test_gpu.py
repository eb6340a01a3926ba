"""On an NVIDIA GPU, and with the CPU in its place: what was found without one to be fragile there.

`pytest -m gpu` runs it on the GPU; the ordinary suite runs the same code on the CPU.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Distiller, Hardware, ModuleTeacher, Run, Term, evaluate, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.data.views import make_views
from limbeck.distillers import SelfDistiller
from limbeck.engine.devices import compiling
from limbeck.engine.optimizers.named import optimizer
from limbeck.models import NETWORKS
from limbeck.teachers import CachedTeacher

COMPILE = torch.compile
ON_GPU_ALONE = pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)], indirect=True)
"""What test_compiling.py tests without a compiler."""


@pytest.fixture
def compiles(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling is tried, however short a training is; in place of a GPU, graphs are captured and not compiled."""
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "LONG", 0.0)
    if device.type == "cpu":
        monkeypatch.setattr(torch, "compile", lambda it, *, mode, **options: COMPILE(it, backend="eager", **options))


@pytest.fixture
def images() -> InMemory:
    return InMemory(torch.randint(0, 256, (80, 3, 16, 16), dtype=torch.uint8), torch.arange(80) % 4)


def network(name: str = "cnn", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](input_shape=(3, 16, 16), classes=4, **options)


def train(images: InMemory, device: torch.device, compile: str | None = "auto", **options: Any) -> Run:
    loader = make_loader(images, 32, shuffle=True, device=device)
    student, teacher = network(channels=[4, 8]), network(channels=[8, 8])
    options = {"teacher": teacher, "epochs": 3, "precision": "32-true", "progress": False} | options
    scheme = Distiller(student, [Term(losses.kd, weight=0.5)])
    return fit(
        scheme,
        loader,
        optimizer=optimizer("sgd", lr=0.05, momentum=0.9),
        hardware=Hardware(device.type, compile=compile),
        **options,
    )


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.usefixtures("compiles")
@pytest.mark.parametrize("mode", ["default", pytest.param("reduce-overhead", marks=pytest.mark.gpu)])
def test_a_compiled_student_learns_what_a_plain_one_learns(images: InMemory, device: torch.device, mode: str) -> None:
    assert_alike(train(images, device, compile=mode).student, train(images, device, compile=None).student)


@ON_GPU_ALONE
@pytest.mark.usefixtures("compiles")
def test_compiling_is_tried(images: InMemory, device: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(images, device, progress=True)
    assert "compiled: a pass takes" in capsys.readouterr().err
    assert_alike(run.student, train(images, device, compile=None).student)


@ON_GPU_ALONE
@pytest.mark.usefixtures("compiles")
def test_networks_with_several_exits_are_tried_too(images: InMemory, device: torch.device) -> None:
    loader = make_loader(images, 32, device=device)
    scheme = SelfDistiller(network("byot_small", widths=(4, 6, 8)))
    sgd = partial(torch.optim.SGD, lr=0.1)
    run = fit(scheme, loader, epochs=1, optimizer=sgd, hardware=Hardware(device.type), progress=False)
    assert math.isfinite(run.metrics[-1]["loss"])


def test_pixels_are_those_of_a_cpu(images: InMemory, device: torch.device) -> None:
    views = make_views(["crop", "flip", "cutout", "randaugment"], classes=4)
    for here, there in zip(
        make_loader(images, 32, shuffle=True, views=views),
        make_loader(images, 32, shuffle=True, views=views, device=device),
        strict=True,
    ):
        assert torch.equal(here.index, there.index)
        off = (here.inputs - there.inputs.cpu()).abs() > 1.5 / 255
        assert off.float().mean() < 0.01  # where an image is turned, a pixel may come from its neighbour


def test_a_teacher_output_remembered_on_the_cpu_teaches_on_the_gpu(images: InMemory, device: torch.device) -> None:
    teacher = network(channels=[8, 8])
    cached = CachedTeacher(ModuleTeacher(copy.deepcopy(teacher)), [make_loader(images, 32)], len(images))
    taught = train(images, device, teacher=cached).student
    assert_alike(taught, train(images, device, teacher=teacher).student)


def test_what_was_trained_there_is_evaluated_there(images: InMemory, device: torch.device) -> None:
    student = train(images, device).student
    assert evaluate(student, make_loader(images, 40)).samples == 80


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_clipped_and_resumed(
    images: InMemory, device: torch.device, tmp_path: Path, precision: str
) -> None:
    options = {"precision": precision, "max_grad_norm": 1.0, "out": tmp_path}
    train(images, device, epochs=1, **options)
    run = train(images, device, resume=True, **options)
    assert len(run.metrics) == 3
    assert math.isfinite(run.metrics[-1]["loss"])
