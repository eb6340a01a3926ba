"""States come back as the weights lie that they belong to, and devices are counted where they are used."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from limbeck.engine.devices import fabric
from limbeck.engine.devices.sharding import load_optimizer


def step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.linspace(0, 1, 2 * 3 * 5 * 5).view(2, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_moments_are_laid_out_as_their_weights() -> None:
    first = nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.Adam(first.parameters(), lr=0.1, fused=True)
    step(first, optimizer)
    second = copy.deepcopy(first).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    resumed = torch.optim.Adam(second.parameters(), lr=0.1, fused=True)
    load_optimizer(resumed, copy.deepcopy(optimizer.state_dict()))
    assert resumed.state[second.weight]["exp_avg"].stride() == second.weight.stride()
    step(first, optimizer)
    step(second, resumed)
    torch.testing.assert_close(second.weight, first.weight)


@pytest.mark.parametrize(
    ("asked", "kind", "count"),
    [("auto", "cpu", 1), ("auto", "cuda", 8), ("-1", "cuda", 8), ("0,", "cuda", 1), ("0,2", "cuda", 2),
     ([3], "cuda", 1), (2, "cpu", 2), ("3", "cuda", 3)],
)  # fmt: skip
def test_devices_are_counted_where_they_are(
    monkeypatch: pytest.MonkeyPatch, asked: int | str | list[int], kind: str, count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert fabric._count(asked, kind) == count
