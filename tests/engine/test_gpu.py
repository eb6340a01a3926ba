"""On an NVIDIA GPU: what was found without one to be fragile there. `pytest -m gpu` runs it."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Distiller, ModuleTeacher, Run, Term, evaluate, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.data.views import make_views
from limbeck.distillers import SelfDistiller
from limbeck.engine import compiling
from limbeck.engine.optim import optimizer
from limbeck.models import NETWORKS
from limbeck.teachers import RememberedTeacher

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)


@pytest.fixture
def images() -> InMemory:
    return InMemory(torch.randint(0, 256, (80, 3, 16, 16), dtype=torch.uint8), torch.arange(80) % 4)


def network(name: str = "cnn", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name](input_shape=(3, 16, 16), classes=4, **options)


def train(images: InMemory, **options: Any) -> Run:
    loader = make_loader(images, 32, shuffle=True, device=CUDA)
    student, teacher = network(channels=[4, 8]), network(channels=[8, 8])
    options = {"teacher": teacher, "epochs": 3, "precision": "32-true", "progress": False} | options
    scheme = Distiller(student, [Term(losses.kd, weight=0.5)])
    return fit(scheme, loader, optimizer=optimizer("sgd", lr=0.05, momentum=0.9), accelerator="cuda", **options)


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_student_learns_what_a_plain_one_learns(images: InMemory, mode: str) -> None:
    assert_alike(train(images, compile=mode).student, train(images, compile=None).student)


def test_compiling_is_tried(
    images: InMemory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiling, "LONG", 0.0)
    run = train(images, progress=True)
    assert "compiled: a pass takes" in capsys.readouterr().err
    assert_alike(run.student, train(images, compile=None).student)


def test_networks_with_several_exits_are_tried_too(images: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "LONG", 0.0)
    loader = make_loader(images, 32, device=CUDA)
    scheme = SelfDistiller(network("byot_small", widths=(4, 6, 8)))
    run = fit(scheme, loader, epochs=1, optimizer=partial(torch.optim.SGD, lr=0.1), accelerator="cuda", progress=False)
    assert math.isfinite(run.metrics[-1]["loss"])


def test_pixels_are_those_of_a_cpu(images: InMemory) -> None:
    views = make_views(["crop", "flip", "cutout", "randaugment"], classes=4)
    for here, there in zip(
        make_loader(images, 32, shuffle=True, views=views),
        make_loader(images, 32, shuffle=True, views=views, device=CUDA),
        strict=True,
    ):
        assert torch.equal(here.index, there.index)
        off = (here.inputs - there.inputs.cpu()).abs() > 1.5 / 255
        assert off.float().mean() < 0.01  # where an image is turned, a pixel may come from its neighbour


def test_a_signal_remembered_on_the_cpu_teaches_on_the_gpu(images: InMemory) -> None:
    teacher = network(channels=[8, 8])
    remembered = RememberedTeacher(ModuleTeacher(copy.deepcopy(teacher)), [make_loader(images, 32)], len(images))
    taught = train(images, teacher=remembered).student
    assert_alike(taught, train(images, teacher=teacher).student)


def test_what_was_trained_there_is_evaluated_there(images: InMemory) -> None:
    student = train(images).student
    assert evaluate(student, make_loader(images, 40)).samples == 80


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_is_clipped_and_resumed(images: InMemory, tmp_path: Path, precision: str) -> None:
    options = {"precision": precision, "clip": 1.0, "out": tmp_path}
    train(images, epochs=1, **options)
    run = train(images, resume=True, **options)
    assert len(run.metrics) == 3
    assert math.isfinite(run.metrics[-1]["loss"])
