"""What is made for another device is made there, and nobody waits for it: torch's meta device knows no values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data import InMemory, make_loader
from limbeck.data.views import make_views

META = torch.device("meta")
STEPS: list[list[Any]] = [
    ["crop", "flip"], ["cutout"], ["jitter"], ["randaugment"], ["autoaugment"],
    ["mixup"], ["cutmix"], [{"mixup": {"strength": 0.5}}], [{"cutmix": {"strength": 0.5}}],
]  # fmt: skip


@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_views_are_made_where_the_images_lie(steps: list[Any]) -> None:
    split = InMemory(torch.zeros(64, 3, 16, 16, dtype=torch.uint8), torch.arange(64) % 10)
    loader = make_loader(split, 8, shuffle=True, device=META, views=make_views(steps, classes=10))
    batches = list(loader)
    assert len(batches) == 8
    for batch in batches:
        assert (batch.inputs.device, batch.targets.device) == (META, META)
        assert batch.inputs.shape == (8, 3, 16, 16)
        assert batch.index.device.type == "cpu"


def test_what_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = torch.Tensor.to

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        seen.append((device.type, non_blocking))
        return original(tensor, device, non_blocking=non_blocking)

    split = InMemory(torch.zeros(8, 3), torch.zeros(8, dtype=torch.int64))
    batch = next(iter(make_loader(split, 8)))
    monkeypatch.setattr(torch.Tensor, "to", to)
    batch.to(META).to(torch.device("meta"))
    batch.to(torch.device("cpu"))
    assert set(seen) == {("meta", True), ("cpu", False)}
