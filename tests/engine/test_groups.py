"""Groups of parameters, against torch's own groups made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from limbeck import Distiller
from limbeck.engine.optimizers.named import made_optimizer, optimizer
from limbeck.errors import RequestError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def stepped(model: nn.Module, made: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    for _ in range(2):
        made.zero_grad()
        model(torch.linspace(-1, 1, 20).view(5, 4)).square().sum().backward()
        made.step()
    return dict(model.named_parameters())


def test_rates_and_decay_by_name() -> None:
    own, plain = network(), network()
    groups: list[tuple[str, dict[str, Any]]] = [("0.*", {"lr": 0.01}), ("*.bias", {"weight_decay": 0.5})]
    make = optimizer("sgd", lr=0.1, weight_decay=0.2, groups=groups, no_decay=["norms", "biases"])
    found = stepped(own, made_optimizer(make, Distiller(own)))
    first, norm, last = plain[0], plain[1], plain[3]
    by_hand = torch.optim.SGD(
        [
            {"params": [first.weight], "lr": 0.01},
            {"params": [first.bias], "lr": 0.01, "weight_decay": 0.0},  # the first group that fits counts
            {"params": [norm.weight], "weight_decay": 0.0},
            {"params": [norm.bias, last.bias], "weight_decay": 0.5},  # what a group gives counts before a word
            {"params": [last.weight]},
        ],
        lr=0.1,
        weight_decay=0.2,
    )
    for name, expected in stepped(plain, by_hand).items():
        torch.testing.assert_close(found[name], expected, msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"groups": [("feature.*", {"lr": 1.0})]},
            r"the group 'feature\.\*' fits no trained parameter; there are 0",
        ),
        ({"groups": [("0.*", {"learning": 1.0})]}, r"unknown option of the group 0\.\* of optimizer sgd 'learning'"),
        ({"no_decay": ["norm"]}, "unknown word of no_decay 'norm'; did you mean norms"),
    ],
)
def test_a_wrong_group_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        made_optimizer(optimizer("sgd", lr=0.1, **options), Distiller(network()))


def test_an_optimizer_by_its_class() -> None:
    own, plain = network(), network()
    make = optimizer("torch.optim:RMSprop", lr=0.01, alpha=0.9)
    found = stepped(own, made_optimizer(make, Distiller(own)))
    for name, expected in stepped(plain, torch.optim.RMSprop(plain.parameters(), lr=0.01, alpha=0.9)).items():
        torch.testing.assert_close(found[name], expected)
    with pytest.raises(RequestError, match="optimizer builtins:dict: no signature"):
        optimizer("builtins:dict", lr=0.1)
