"""A student compiled by name or by trial learns what a plain one learns, and is handed over plain."""

from __future__ import annotations

import copy
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Distiller, RequestError, Run, RunError, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers import SelfDistiller
from limbeck.engine import compiling
from limbeck.engine.devices import make_fabric
from limbeck.models.multi_exit import byot_small

COMPILE = torch.compile


class Network(nn.Module):
    """A perceptron that counts how often Python walks through it, and dawdles where it is not compiled."""

    def __init__(self, dawdles: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        self.dawdles = dawdles
        self.walked: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.walked.append((len(x), self.training))
            time.sleep(self.dawdles)
        logits: Tensor = self.layers(x)
        return logits


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Graphs are captured and not compiled, which would take long here; the modes that were asked for."""
    modes: list[Any] = []

    def compile(function: Any, *, mode: str) -> Any:
        modes.append(mode)
        return COMPILE(function, backend="eager")

    monkeypatch.setattr(torch, "compile", compile)
    torch.compiler.reset()
    return modes


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling is tried here too, however short the training is."""
    monkeypatch.setattr(compiling, "DEVICES", ("cpu",))
    monkeypatch.setattr(compiling, "LONG", 0.0)
    monkeypatch.setattr(compiling, "PROBE", 0.05)


def train(student: nn.Module, *terms: Term, **options: Any) -> Run:
    torch.manual_seed(0)
    split = InMemory(torch.randn(40, 6), torch.arange(40) % 3)
    teacher = nn.Linear(6, 3)
    scheme = Distiller(student, terms or [Term(losses.kd, weight=0.5)])
    loader = make_loader(split, 16, shuffle=True)
    options = {"epochs": 2, "optimizer": partial(torch.optim.SGD, lr=0.1), "progress": False} | options
    return fit(scheme, loader, teacher=teacher, **options)


def same(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)


def test_a_mode_by_name_is_torchs_and_the_student_is_handed_over_plain(eager: list[Any]) -> None:
    start = Network()
    fast, plain = train(copy.deepcopy(start), compile="reduce-overhead"), train(copy.deepcopy(start), compile=None)
    assert eager == ["reduce-overhead"]
    assert (fast.compile, plain.compile) == ("reduce-overhead", None)
    assert fast.student._compiled_call_impl is None
    same(fast.student, plain.student)


def test_whole_training_batches_are_compiled_and_nothing_else() -> None:
    student = Network()
    held_out = make_loader(InMemory(torch.randn(40, 6), torch.arange(40) % 3), 16)
    train(student, compile="default", val=held_out)
    trained = [size for size, training in student.walked if training]
    assert trained == [8, 8]  # the last batch of both epochs
    assert {size for size, training in student.walked if not training} >= {16, 8}


def test_a_training_that_fails_leaves_the_student_plain() -> None:
    student = Network()
    with pytest.raises(RunError):
        train(student, compile="default", optimizer=partial(torch.optim.SGD, lr=1e38))
    assert student._compiled_call_impl is None


@pytest.mark.usefixtures("tries")
def test_it_is_chosen_where_a_trial_shows_that_it_pays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = Network(dawdles=0.01)
    fast = train(copy.deepcopy(start), out=tmp_path, progress=True)
    assert fast.compile == "default"
    assert "limbeck: student: compiled: a pass takes" in capsys.readouterr().err
    assert '"compile": "default"' in (tmp_path / "student.json").read_text()
    assert fast.seconds > 0.1  # the trial's are among them
    same(fast.student, train(copy.deepcopy(start), compile=None).student)


@pytest.mark.usefixtures("tries")
def test_networks_with_several_exits_are_tried_too() -> None:
    images = InMemory(torch.rand(32, 1, 8, 8), torch.arange(32) % 3)
    network = byot_small(input_shape=(1, 8, 8), classes=3, widths=(2, 3, 4))
    choice = compiling.choose_compile(SelfDistiller(network), images.inputs, make_fabric(accelerator="cpu"), 100)
    assert "compiled: a pass takes" in choice.reason


@pytest.mark.usefixtures("tries")
def test_more_networks_are_compiled_than_torch_would_by_itself() -> None:
    for width in range(1, 12):
        student = nn.Sequential(*[nn.Linear(6, 6) for _ in range(width)])
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        train(nn.Sequential(student, nn.Linear(6, 3)), compile="default")
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs


@pytest.mark.usefixtures("tries")
def test_a_trial_leaves_the_student_as_it_is() -> None:
    student = Network(dawdles=0.01).eval()
    before = copy.deepcopy(student)
    choice = compiling.choose_compile(Distiller(student), torch.randn(16, 6), make_fabric(accelerator="cpu"), 100)
    assert choice.mode == "default"
    assert choice.seconds > 0
    assert not student.training
    assert not student.walked
    assert all(parameter.grad is None for parameter in student.parameters())
    same(student, before)


@pytest.mark.usefixtures("tries")
def test_what_fails_to_compile_is_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "compile", lambda function, mode: COMPILE(function, backend=broken))
    start = Network()
    run = train(copy.deepcopy(start), progress=True)
    assert run.compile is None
    said = capsys.readouterr().err
    assert "limbeck: student: not compiled: torch.compile fails on the student: no such kernel; compile: null" in said
    same(run.student, train(copy.deepcopy(start), compile=None).student)
    with pytest.raises(RequestError, match="no such kernel; compile: null does without"):
        train(start, compile="default")


@pytest.mark.usefixtures("tries")
def test_what_compiling_makes_slower_is_trained_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.001, 0.002))
    monkeypatch.setattr(compiling, "_pass_seconds", lambda *_: next(times))
    choice = compiling.choose_compile(Distiller(Network()), torch.randn(16, 6), make_fabric(accelerator="cpu"), 100)
    assert choice.mode is None
    assert "not compiled: a pass takes 1.00 ms as it is, and 2.00 ms compiled" in choice.reason


def test_nothing_is_tried_where_it_cannot_pay(monkeypatch: pytest.MonkeyPatch, eager: list[Any]) -> None:
    student, inputs, fabric = Network(dawdles=0.001), torch.randn(16, 6), make_fabric(accelerator="cpu")

    def choose(scheme: Distiller, passes: int = 10**7) -> compiling.Choice:
        return compiling.choose_compile(scheme, inputs, fabric, passes)

    reads_inside = Distiller(student, [Term(losses.mse, student="layers.0", teacher="logits", adapter="auto")])
    assert choose(Distiller(student)) == compiling.Choice(None)  # on a CPU
    monkeypatch.setattr(compiling, "DEVICES", ("cpu",))
    monkeypatch.setattr(compiling, "PROBE", 0.01)
    assert choose(Distiller(student), passes=100) == compiling.Choice(None)  # a training of a second
    assert choose(reads_inside) == compiling.Choice(None)
    assert choose(Distiller(torch.compile(student, mode="default"))) == compiling.Choice(None)
    torch.use_deterministic_algorithms(True)
    try:
        assert choose(Distiller(student)) == compiling.Choice(None)
    finally:
        torch.use_deterministic_algorithms(False)
    assert eager == ["default"]  # the user's own
    assert choose(Distiller(student)).mode == "default"


def test_what_cannot_be_compiled_is_said() -> None:
    term = Term(losses.mse, student="layers.0", teacher="logits", adapter="auto")
    with pytest.raises(RequestError, match="reads hidden tensors"):
        train(Network(), term, compile="default")
    with pytest.raises(RequestError, match="unknown mode of compile 'fast'"):
        train(Network(), compile="fast")
    with pytest.raises(RequestError, match="CUDA graphs, which write each batch's gradients over the last"):
        train(Network(), compile="reduce-overhead", accumulate=2)
    train(Network(), compile="max-autotune-no-cudagraphs", accumulate=2)
