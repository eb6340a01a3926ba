"""A student compiled by name or by trial learns what a plain one learns, and is handed over plain."""

from __future__ import annotations

import copy
import importlib
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from limbeck import Batch, Distiller, Hardware, RequestError, Run, RunError, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.distillers import SelfDistiller
from limbeck.engine.devices import compiling
from limbeck.engine.devices.fabric import make_fabric
from limbeck.models.networks.multi_exit import byot_small
from limbeck.taps.read import TRACED_INPUTS

COMPILE = torch.compile


OPERATION = Term(losses.mse, student="relu", teacher="logits", adapter="auto")


class Network(nn.Module):
    """A perceptron that notes how Python walks through it where it is not compiled; `relu` is one of its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3))
        self.walked: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.walked.append((len(x), self.training))
        logits: Tensor = self.layers(torch.relu(x))
        return logits


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Graphs are captured and not compiled, which would take long here; the modes that were asked for."""
    modes: list[Any] = []

    def compile(function: Any, *, mode: str, **options: Any) -> Any:
        modes.append(mode)
        return COMPILE(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile)
    torch.compiler.reset()
    return modes


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling is tried here too; a pass is said to take 100 s, and 40 s when it is compiled."""
    monkeypatch.setattr(compiling, "DEVICES", ("cpu",))
    said = itertools.cycle((100.0, 40.0))

    def seconds(*work: Any) -> float:
        compiling._pass(*work)
        return next(said)

    monkeypatch.setattr(compiling, "_pass_seconds", seconds)


def train(student: nn.Module, *terms: Term, compile: str | None = "auto", **options: Any) -> Run:
    torch.manual_seed(0)
    split = InMemory(torch.randn(40, 6), torch.arange(40) % 3)
    teacher = nn.Linear(6, 3)
    scheme = Distiller(student, terms or [Term(losses.kd, weight=0.5)])
    loader = make_loader(split, 16, shuffle=True)
    options = {"epochs": 2, "optimizer": partial(torch.optim.SGD, lr=0.1), "progress": False} | options
    return fit(scheme, loader, teacher=teacher, hardware=Hardware(compile=compile), **options)


def same(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, msg=name)


def test_a_mode_by_name_is_torchs_and_the_student_is_handed_over_plain(eager: list[Any]) -> None:
    start = Network()
    fast, plain = train(copy.deepcopy(start), compile="reduce-overhead"), train(copy.deepcopy(start), compile=None)
    assert {*eager} == {"reduce-overhead"}
    assert (fast.compile, plain.compile) == ("reduce-overhead", None)
    assert fast.student._compiled_call_impl is None
    same(fast.student, plain.student)


HIDDEN = (
    ("layers.1",),  # which the next module overwrites
    ("layers.3:in",),
    ("", "layers.0"),  # the whole network's output and a part's
)


@pytest.mark.parametrize("taps", [one for one in HIDDEN if TRACED_INPUTS or ":in" not in one[0]])
def test_terms_read_hidden_tensors_of_one_compiled_graph(taps: tuple[str, ...]) -> None:
    terms = [Term(losses.mse, student=tap, teacher="logits", adapter="auto", name=f"of {tap}") for tap in taps]
    start, found = Network(), []
    for compile in ("default", None):
        torch._dynamo.utils.counters.clear()
        student = copy.deepcopy(start)
        found.append(train(student, *terms, compile=compile))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert (graphs, len(torch._dynamo.utils.counters["graph_break"])) == (compile is not None, 0)
        assert [size for size, training in student.walked if training][-2:] == ([8, 8] if compile else [16, 8])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())
    same(found[0].student, found[1].student)
    assert [one.metrics[-1]["loss"] for one in found] == pytest.approx([found[1].metrics[-1]["loss"]] * 2)


def test_a_student_with_hooks_does_not_run_what_was_compiled_without_or_with_others() -> None:
    start = Network()
    for tap in (None, "layers.0", "layers.2", "layers.0"):
        terms = [Term(losses.mse, student=tap, teacher="logits", adapter="auto")] if tap else []
        students = [train(copy.deepcopy(start), *terms, compile=compile).student for compile in ("default", None)]
        same(*students)


def test_a_loss_with_a_memory_is_not_changed_by_the_look_at_the_compiled_student() -> None:
    start, found = Network(), []
    for compile in ("default", None):
        torch.manual_seed(0)
        memory = losses.CRD(8, 3, samples=40, dimension=4, negatives=20)
        found.append(train(copy.deepcopy(start), Term(memory, student="layers.0", teacher="logits"), compile=compile))
    assert found[0].compile == "default"
    same(found[0].student, found[1].student)


@pytest.mark.usefixtures("tries")
def test_hooks_that_cannot_be_compiled_leave_the_student_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: object) -> Any:
        if len(graph.graph.output_node().args[0]) > 1:  # logits and a hidden tensor
            raise RuntimeError("no kernel for hooks")
        return graph

    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=broken))
    hidden = Term(losses.mse, student="layers.0", teacher="logits", adapter="auto")
    assert train(Network(), hidden, progress=True).compile is None
    assert "not compiled: torch.compile fails on the student: no kernel for hooks" in capsys.readouterr().err
    with pytest.raises(RequestError, match="no kernel for hooks; compile: null does without, or"):
        train(Network(), hidden, compile="default")


def test_whole_training_batches_are_compiled_and_nothing_else() -> None:
    student = Network()
    held_out = make_loader(InMemory(torch.randn(40, 6), torch.arange(40) % 3), 16)
    train(student, compile="default", val=held_out)
    trained = [size for size, training in student.walked if training]
    assert trained[-2:] == [8, 8]  # the last batch of both epochs
    assert trained[:-2].count(16) == 2  # plain passes beside which a compiled one is put, before the first step
    assert {size for size, training in student.walked if not training} >= {16, 8}


def test_a_training_that_fails_leaves_the_student_plain() -> None:
    student = Network()
    with pytest.raises(RunError):
        train(student, compile="default", optimizer=partial(torch.optim.SGD, lr=1e38))
    assert student._compiled_call_impl is None


def choose(student: nn.Module, passes: int = 6, *terms: Term) -> compiling.Choice:
    example = Batch(torch.randn(16, 6), torch.arange(16) % 3, torch.arange(16))
    return compiling.choose_compile(Distiller(student, terms), example, make_fabric(accelerator="cpu"), passes)


@pytest.mark.usefixtures("tries")
def test_it_is_chosen_where_a_trial_shows_that_it_pays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = Network()
    fast = train(copy.deepcopy(start), out=tmp_path, progress=True)
    assert fast.compile == "default"
    said = "limbeck: student: compiled: a pass takes 40000.00 ms compiled, and 100000.00 ms as it is, which saves 360 s"
    assert said in capsys.readouterr().err
    assert '"compile": "default"' in (tmp_path / "student.json").read_text()
    same(fast.student, train(copy.deepcopy(start), compile=None).student)


def test_a_trial_is_part_of_the_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("limbeck.engine.work")
    monkeypatch.setattr(module, "choose_compile", lambda *_: compiling.Choice("default", "tried", 1000.0))
    assert train(Network()).seconds > 1000


def test_a_resumed_training_keeps_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("limbeck.engine.work")
    left = []

    def choose_once(scheme: object, example: object, fabric: object, passes: int) -> compiling.Choice:
        left.append(passes)
        return compiling.Choice("default")

    monkeypatch.setattr(module, "choose_compile", choose_once)
    start = Network()
    train(copy.deepcopy(start), out=tmp_path, epochs=1)
    resumed = train(copy.deepcopy(start), out=tmp_path, epochs=3, resume=True)
    assert (left, resumed.compile) == ([3], "default")
    assert train(copy.deepcopy(start), out=tmp_path, epochs=4, resume=True, compile=None).compile is None


@pytest.mark.usefixtures("tries")
def test_networks_with_several_exits_are_tried_too() -> None:
    network = byot_small(input_shape=(1, 8, 8), classes=3, widths=(2, 3, 4))
    example = Batch(torch.rand(32, 1, 8, 8), torch.arange(32) % 3, torch.arange(32))
    choice = compiling.choose_compile(SelfDistiller(network), example, make_fabric(accelerator="cpu"), 6)
    assert choice.mode == "default"


def test_a_sequence_of_layers_is_compiled_whole_and_so_is_its_copy() -> None:
    graphs = CompileCounter()
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for network in (student, copy.deepcopy(student)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=graphs, dynamic=False))
            with compiling.compiled(network, "default", 16):
                network(torch.randn(16, 6)).sum().backward()
    assert (graphs.frame_count, graphs.op_count) == (1, 3)


def test_more_networks_are_compiled_than_torch_would_by_itself() -> None:
    for width in range(1, 12):
        student = nn.Sequential(*[nn.Linear(6, 6) for _ in range(width)])
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        train(nn.Sequential(student, nn.Linear(6, 3)), compile="default", epochs=1)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs


@pytest.mark.usefixtures("tries")
def test_a_trial_leaves_the_student_as_it_is() -> None:
    student = Network().eval()
    before = copy.deepcopy(student)
    assert choose(student).mode == "default"
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

    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=broken))
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
    times = iter((100.0, 200.0))
    monkeypatch.setattr(compiling, "_pass_seconds", lambda *_: next(times))
    choice = choose(Network())
    assert choice.mode is None
    assert "not compiled: a pass takes 200000.00 ms compiled, and 100000.00 ms as it is" in choice.reason


@pytest.mark.usefixtures("tries")
def test_nothing_is_tried_where_it_cannot_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(Network()).mode == "default"
    untried = compiling.Choice(None)
    assert choose(Network(), 2) == untried  # three minutes
    assert choose(Network(), 6, OPERATION) == untried
    by_user = Network()
    by_user.compile(mode="default")
    assert choose(by_user) == choose(torch.compile(Network(), mode="default")) == untried
    torch.use_deterministic_algorithms(True)
    try:
        assert choose(Network()) == untried
    finally:
        torch.use_deterministic_algorithms(False)
    monkeypatch.setattr(compiling, "DEVICES", ("cuda",))
    assert choose(Network()) == untried


def test_a_pass_is_timed() -> None:
    inputs, fabric = torch.randn(16, 6), make_fabric(accelerator="cpu")
    student = Network()
    assert 0 < compiling._pass_seconds(student, inputs, fabric) < 1
    assert student.walked[0] == (16, True)


def test_what_cannot_be_compiled_is_said() -> None:
    with pytest.raises(RequestError, match="compile: default, but a term reads 'relu', which compiled code does not"):
        train(Network(), OPERATION, compile="default")
    in_part = Network()
    in_part.layers[3].compile(mode="default")
    hidden = Term(losses.mse, student="layers.0", teacher="logits", adapter="auto")
    with pytest.raises(RequestError, match="a student of which a part is compiled already; leave compile out"):
        train(in_part, hidden, compile="default")
    with pytest.raises(RequestError, match="unknown mode of compile 'fast'"):
        train(Network(), compile="fast")
    with pytest.raises(RequestError, match="CUDA graphs, which put each batch's gradients"):
        train(Network(), compile="reduce-overhead", accumulate_steps=2)
    train(Network(), compile="max-autotune-no-cudagraphs", accumulate_steps=2)
