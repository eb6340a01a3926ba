"""A student whose compiled code computes anything else than its own code is refused, or trained as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, RequestError, fit
from limbeck.engine.devices import compiling

COMPILE = torch.compile
SGD = partial(torch.optim.SGD, lr=0.1)


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


def backend(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Compiles to the network's own code, with each output changed."""

    def compile(graph: Any, inputs: object) -> Callable[..., Any]:
        return lambda *given: tuple(change(x) for x in graph(*given))

    return compile


class Backwards(torch.autograd.Function):
    """Right values, and gradients of half their size, as of code that leaves out every other element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient / 2


WRONG = {
    "values": lambda x: 1e5 * x,  # as memory that nothing has written to
    "gradients": Backwards.apply,
    "not a number": lambda x: x * float("nan"),
}


@pytest.fixture(autouse=True)
def anew() -> None:
    torch.compiler.reset()


def train(student: nn.Module, compile: str | None) -> None:
    batches = [Batch(torch.randn(16, 6), torch.arange(16) % 3, torch.arange(16))]
    hardware = Hardware("cpu", compile=compile)
    fit(Distiller(student), batches, epochs=2, optimizer=SGD, hardware=hardware, progress=False)


@pytest.mark.parametrize(
    ("wrong", "dropout", "what"),
    [
        ("values", 0.0, "loss"),
        ("values", 0.1, "loss"),
        ("gradients", 0.0, "gradient of student.0.weight"),  # with dropout, other draws make as much of them
        ("not a number", 0.1, "loss"),
    ],
)
def test_other_results_are_refused(wrong: str, dropout: float, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = backend(WRONG[wrong])
    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=made))
    with pytest.raises(RequestError, match=f"another {what} than .*code.*; compile: null does without, or set TORCH"):
        train(network(dropout), "default")
    for compile in (None, "auto"):
        with pytest.raises(RequestError, match=f"another {what} than .*; a student that is not compiled does without"):
            train(torch.compile(network(dropout)), compile)


def test_unasked_it_is_then_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=backend(WRONG["values"])))
    monkeypatch.setattr(compiling, "DEVICES", ("cpu",))
    seconds = iter((100.0, 40.0))
    monkeypatch.setattr(compiling, "_pass_seconds", lambda *_: next(seconds))
    batches = [Batch(torch.randn(16, 6), torch.arange(16) % 3, torch.arange(16))]
    run = fit(Distiller(network()), batches, epochs=6, optimizer=SGD, hardware=Hardware("cpu", compile="auto"))
    assert run.compile is None
    assert (
        "not compiled: torch.compile gives another loss than the student's own code, off by" in capsys.readouterr().err
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_right_results_are_trained_with_and_looking_changes_nothing(
    dropout: float, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = backend(lambda x: x * (1 + 1e-6))  # as rounding in another order
    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend=made))
    batches = [Batch(torch.randn(16, 6), torch.arange(16) % 3, torch.arange(16))]
    start, students = network(dropout), []
    for compile in ("default", None):
        options = {"hardware": Hardware("cpu", compile=compile), "precision": precision, "progress": False}
        distiller = Distiller(copy.deepcopy(start))
        students.append(fit(distiller, batches, epochs=2, optimizer=SGD, **options).student)
    for fast, plain in zip(students[0].state_dict().values(), students[1].state_dict().values(), strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-2 if precision == "bf16-mixed" else 1e-4, atol=1e-4)
