"""Modules that a teacher function reaches run in eval mode, and are left as they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, FunctionTeacher, RequestError
from limbeck.teachers.reached import modules_reached


class Net(nn.Module):
    """It returns logits and features, and comes in training mode as every module does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.parts = {"nets": [net]}

    def __call__(self, x: Tensor) -> Tensor:
        return self.parts["nets"][0](x)[0]

    def say(self, x: Tensor) -> Tensor:
        return self(x)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def outer(*args: Any) -> Any:
        return function(*args)

    return outer


GLOBAL = Net()


def by_global(x: Tensor) -> Tensor:
    return GLOBAL(x)[0]


def first_of(net: nn.Module, x: Tensor) -> Tensor:
    return net(x)[0]


WAYS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "closure": lambda net: lambda x: net(x)[0],
    "nested": lambda net: (lambda f: lambda x: f(x))(lambda x: net(x)[0]),
    "partial": lambda net: partial(first_of, net),
    "default": lambda net: lambda x, net=net: net(x)[0],
    "object": Holder,
    "method": lambda net: Holder(net).say,
    "decorated": lambda net: decorated(lambda x: net(x)[0]),
    "namespace": lambda net: (lambda space: lambda x: space.net(x)[0])(SimpleNamespace(net=net)),
    "several": lambda net: (lambda nets: lambda x: sum(one(x)[0] for one in nets))([net, net]),
    "bound forward": lambda net: net.forward,
}


@pytest.mark.parametrize("way", WAYS)
def test_they_are_found_however_they_are_held(way: str) -> None:
    net = Net()
    assert modules_reached(WAYS[way](net)) == [net]


@pytest.mark.parametrize("way", WAYS)
def test_they_run_in_eval_mode_and_stay_as_they_were(way: str) -> None:
    net, x = Net(), torch.randn(6, 4) + 3
    net.body[2].eval()
    before = net.body[1].running_mean.clone()
    batch = Batch(x, torch.zeros(6, dtype=torch.long), torch.arange(6))
    logits = FunctionTeacher(WAYS[way](net))(batch).output
    assert torch.equal(net.body[1].running_mean, before)
    assert [module.training for module in net.modules()] == [True, True, True, True, False, True]
    with torch.no_grad():
        expected = net.eval()(x)[0] * (2 if way == "several" else 1)
    torch.testing.assert_close(logits, expected)


def test_globals_and_what_reaches_nothing() -> None:
    assert modules_reached(by_global) == [GLOBAL]
    assert modules_reached(lambda x: x * 2) == []
    assert modules_reached(torch.sigmoid) == []
    inner = nn.Linear(2, 2)
    outer = nn.Sequential(inner)
    assert modules_reached(lambda x: inner(outer(x))) == [outer]


def test_circles_and_large_values_end() -> None:
    circle: list[Any] = [list(range(100_000))]
    circle.append(circle)
    assert modules_reached(lambda x: circle) == []


def test_a_lazy_module_is_untrained() -> None:
    lazy = nn.LazyLinear(3)
    batch = Batch(torch.ones(2, 4), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(RequestError, match="the teacher is not trained: its lazy layer LazyLinear has never run"):
        FunctionTeacher(lambda x: lazy(x))(batch)


def test_a_tuple_gives_its_logits_and_says_which() -> None:
    net = Net()
    batch = Batch(torch.randn(6, 4), torch.zeros(6, dtype=torch.long), torch.arange(6))
    teacher = FunctionTeacher(lambda x: net(x)[::-1], classes=3)
    logits = teacher(batch).output
    torch.testing.assert_close(logits, net.eval()(batch.inputs)[0].detach())
    assert teacher.notes == ["returns a tuple of 2 elements; element 1, of shape (6, 3), is taken as its logits"]
