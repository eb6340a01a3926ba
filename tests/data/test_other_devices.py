"""What is made for another device is made there, and nobody waits for it: torch's meta device knows no values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data import InMemory, make_loader
from limbeck.data.views import make_views
from limbeck.types import send

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


@pytest.mark.parametrize(("kind", "at_once"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_only_copies_to_cuda_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, kind: str, at_once: bool) -> None:
    asked = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, *, non_blocking: asked.append(non_blocking))
    send(torch.zeros(1), torch.device(kind))
    assert asked == [at_once]
