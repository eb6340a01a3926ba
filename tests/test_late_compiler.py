"""Without torch's compiler imported optimizers do the same; from its import on everything is as torch has it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from limbeck import late_compiler

CODE = """
import copy, sys
from functools import partial
import torch
from torch import nn
import limbeck
from limbeck.engine import Hardware, fit
from limbeck.distillers import Distiller
from limbeck.late_compiler import put_off, take_step
from limbeck.models import multiply_adds
from lightning_fabric.wrappers import OptimizedModule

def trained(make, how):
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))]
    optimizer = make(weights)
    for _ in range(3):
        optimizer.zero_grad()
        (weights[0].sin().sum() + weights[1].square().sum()).backward()
        how(optimizer)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return weights

makes = [partial(torch.optim.Adam, lr=0.1, fused=True), partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
         partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True), partial(torch.optim.RMSprop, lr=0.01)]
put_off()
light = [trained(make, take_step) for make in makes]
network = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2))
data = [(torch.randn(6, 1, 4), torch.arange(6) % 2)] * 2
fit(Distiller(network), data, epochs=1, optimizer=makes[0], progress=False, hardware=Hardware("cpu"))
assert multiply_adds(network, data[0][0][:1]) == 2 * 4 + 8 * 2
assert not isinstance(network, OptimizedModule)
assert not {"torch._dynamo", "torch.distributed.tensor", "sklearn", "triton"} & set(sys.modules)
disabled = torch.optim.Optimizer.zero_grad.__wrapped__
assert hasattr(disabled, "__dynamo_disable")

import torch._dynamo
assert not hasattr(disabled, "__dynamo_disable")
usual = [trained(make, lambda optimizer: optimizer.step()) for make in makes]
for some, others in zip(light, usual, strict=True):
    assert all(torch.equal(one, other) for one, other in zip(some, others, strict=True))
assert hasattr(disabled, "__dynamo_disable") and disabled.__dict__["__dynamo_disable"] is not disabled
whole = torch.compile(network, backend="eager")
assert isinstance(whole, OptimizedModule) and isinstance(whole, torch._dynamo.OptimizedModule)
assert torch.equal(whole(data[0][0]), network(data[0][0]))
"""


def test_a_process_without_the_compiler_trains_the_same() -> None:
    done = subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class _Own(torch.optim.SGD):
    steps = 0

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        _Own.steps += 1
        super().step()


def test_steps_of_other_kinds_are_called_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_compiler, "COMPILER", "no.such.compiler")  # as if it was not imported yet
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    late_compiler.take_step(_Own([weight], lr=0.1))
    assert _Own.steps == 1
    seen: list[Optimizer] = []
    hooked = torch.optim.SGD([weight], lr=0.1)
    hooked.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer))
    late_compiler.take_step(hooked)
    assert seen == [hooked]
    torch.testing.assert_close(weight.detach(), torch.full((2,), 0.8))


def test_where_the_compiler_is_asked_for_more_it_is_not_there() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[:2] == ["torch", "_dynamo"]]:
            patch.delitem(sys.modules, name)
        with pytest.raises(ImportError), late_compiler.asked_for_the_class_alone():
            from torch._dynamo import config  # noqa: F401
        assert late_compiler.COMPILER not in sys.modules
