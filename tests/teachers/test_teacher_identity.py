"""A fingerprint changes with all that changes outputs, and with nothing else; stored outputs of a mended teacher go."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import ModuleTeacher, Preprocess
from limbeck.teachers.identity import _constant, identity
from limbeck.types import Batch


class Scaled(nn.Module):
    """A linear layer with settings that no repr shows."""

    def __init__(self, factor: float = 2.0, act: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 2)
        self.factor, self.act, self.plan = factor, act, {"parts": [1, 2]}
        self.register_buffer("shift", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x)) * self.factor + self.shift


class Mended(Scaled):
    """The same with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(x)) * self.factor - self.shift


Mended.__qualname__ = Scaled.__qualname__


def times(number: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * number


def leaky(x: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(x, slope)


def changed(change: Callable[[Any], object]) -> Scaled:
    module = Scaled(act=times(3))
    change(module)
    return module


CHANGES: dict[str, Callable[[Any], object]] = {
    "a number": lambda m: setattr(m, "factor", 1.0),
    "a function": lambda m: setattr(m, "act", F.gelu),
    "a closure": lambda m: setattr(m, "act", times(4)),
    "a partial": lambda m: setattr(m, "act", functools.partial(leaky, slope=0.1)),
    "a number in a list": lambda m: m.plan["parts"].append(3),
    "a buffer that no state dict has": lambda m: m.shift.add_(1),
    "another class under the same name": lambda m: setattr(m, "__class__", Mended),
    "a forward put over it": lambda m: setattr(m, "forward", MethodType(lambda self, x: self.layer(x), m)),
    "a hook": lambda m: m.register_forward_hook(lambda module, inputs, output: output + 1),
    "a padding": lambda m: setattr(m, "layer", nn.Conv1d(1, 2, 3, padding=1)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_outputs_changes_it(what: str) -> None:
    before = identity(Scaled(act=times(3)))
    assert identity(changed(CHANGES[what])) != before


def test_a_copy_and_a_second_one_have_the_same() -> None:
    module = Scaled(act=times(3))
    first = ModuleTeacher(module).fingerprint
    batch = Batch(torch.rand(2, 3), torch.zeros(2, dtype=torch.long), torch.arange(2))
    ModuleTeacher(module)(batch)
    for one in (module, module.train(), copy.deepcopy(module), Scaled(act=times(3))):
        assert ModuleTeacher(one).fingerprint == first


def test_partials_with_other_numbers_differ() -> None:
    one, other = (Scaled(act=functools.partial(leaky, slope=slope)) for slope in (0.1, 0.2))
    assert identity(one) != identity(other)


def test_scripts_are_known_by_their_code() -> None:
    with warnings.catch_warnings(action="ignore"):  # torch calls tracing old
        scripts = [torch.jit.trace(Scaled(factor), torch.rand(2, 3)) for factor in (2.0, 3.0, 2.0)]
    prints = [ModuleTeacher(script).fingerprint for script in scripts]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("other", [None, Preprocess(mean=[0.4]), Preprocess(mean=[0.5], size=4), nn.Hardtanh()])
def test_preparation_counts(other: nn.Module | None) -> None:
    one = ModuleTeacher(Scaled(), inputs=Preprocess(mean=[0.5]))
    assert one.fingerprint != ModuleTeacher(Scaled(), inputs=other).fingerprint
    assert one.fingerprint == ModuleTeacher(Scaled(), inputs=Preprocess(mean=[0.5])).fingerprint


def test_constants_without_an_order_are_put_into_one() -> None:
    # Their own order changes from process to process.
    assert _constant(frozenset("dbca")) == repr(["'a'", "'b'", "'c'", "'d'"])
