from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck.engine.optimizers import stepper
from limbeck.engine.optimizers.stepper import Stepper

Make = Callable[[Any], torch.optim.Optimizer]
MAKES: dict[str, Make] = {
    "adam": partial(torch.optim.Adam, lr=0.1, weight_decay=0.01, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=0.1, betas=(0.5, 0.9), fused=True),
    "adam not fused": partial(torch.optim.Adam, lr=0.1),
    "amsgrad": partial(torch.optim.Adam, lr=0.1, amsgrad=True, fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
}
if "decoupled_weight_decay" in inspect.signature(torch.optim.Adam).parameters:  # newer torch
    MAKES["decoupled"] = partial(torch.optim.Adam, lr=0.1, weight_decay=0.5, decoupled_weight_decay=True, fused=True)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def groups(network: nn.Sequential) -> list[dict[str, Any]]:
    first, second = network
    return [{"params": list(first.parameters())}, {"params": list(second.parameters()), "lr": 0.01}]


def train(network: nn.Sequential, optimizer: torch.optim.Optimizer, step: Callable[[], object], steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        network(torch.randn(5, 3, generator=generator)).square().mean().backward()
        if number == 2:
            network[1].bias.grad = None
        optimizer.param_groups[0]["lr"] *= 0.9
        step()
        for parameter in network.parameters():
            parameter.grad = None
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_step_is_the_optimizers_own(make: Make) -> None:
    plain, quick = model(), model()
    optimizer, same = make(groups(plain)), make(groups(quick))
    expected = train(plain, optimizer, optimizer.step, 6)
    assert torch.equal(train(quick, same, Stepper(same), 6), expected)
    saved, again = optimizer.state_dict()["state"], same.state_dict()["state"]
    assert all(torch.equal(saved[p][name], again[p][name]) for p in saved for name in saved[p])


def test_it_goes_on_from_a_loaded_state() -> None:
    network = model()
    optimizer = MAKES["adam"](groups(network))
    train(network, optimizer, Stepper(optimizer), 4)
    resumed = copy.deepcopy(network)
    other = MAKES["adam"](groups(resumed))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = train(network, optimizer, optimizer.step, 4)
    assert torch.equal(train(resumed, other, Stepper(other), 4), expected)


def test_fused_adam_is_not_asked_to_collect_its_tensors_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    optimizer = MAKES["adam"](network.parameters())
    quick = Stepper(optimizer)
    train(network, optimizer, quick, 1)
    monkeypatch.setattr(optimizer, "step", None)
    train(network, optimizer, quick, 2)


def test_hooks_and_subclasses_are_respected() -> None:
    class Counting(torch.optim.Adam):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            Counting.steps += 1
            return super().step(closure)

    network = model()
    own = Counting(network.parameters(), fused=True)
    train(network, own, Stepper(own), 3)
    assert Counting.steps == 3
    seen: list[int] = []
    hooked = MAKES["adam"](network.parameters())
    quick = Stepper(hooked)
    train(network, hooked, quick, 2)
    hooked.register_step_post_hook(lambda *_: seen.append(1))
    train(network, hooked, quick, 3)
    assert len(seen) == 3


def test_weights_of_several_dtypes_are_left_to_the_optimizer() -> None:
    network = model()
    network[1].bfloat16()
    optimizer = MAKES["adam"](network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert stepper._collected(optimizer) is None


def test_what_comes_later_is_trained_too() -> None:
    network = model()
    network[1].requires_grad_(False)
    optimizer = MAKES["adam"](network.parameters())
    quick = Stepper(optimizer)

    def step() -> None:
        network(torch.ones(2, 3)).sum().backward()
        quick()

    step()
    network[1].requires_grad_(True)
    late = nn.Parameter(torch.zeros(2))
    before = network[1].weight.clone()
    step()
    step()
    assert not torch.equal(network[1].weight, before)
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.ones(2)
    step()
    assert late.abs().min() > 0


def test_a_parameter_that_never_had_a_gradient() -> None:
    network = model()
    optimizer = MAKES["adam"](network.parameters())
    quick = Stepper(optimizer)
    for _ in range(3):
        network[0](torch.ones(1, 3)).sum().backward()
        quick()
    assert stepper._collected(optimizer) is None
