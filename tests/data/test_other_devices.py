"""What is made for another device is made there, and nobody waits for it: torch's meta device knows no values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.data import InMemory, loaders, make_loader
from limbeck.data.views import make_views
from limbeck.types import send

META = torch.device("meta")
STEPS: list[list[Any]] = [
    ["crop", "flip"], ["resized_crop"], ["cutout"], ["jitter"], ["randaugment"], ["autoaugment"],
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


@pytest.mark.parametrize("steps", [["crop"], ["randaugment"], ["mixup"]], ids=str)
def test_samples_that_would_fill_a_gpu_move_batch_by_batch(monkeypatch: pytest.MonkeyPatch, steps: list[Any]) -> None:
    monkeypatch.setattr(loaders, "fits", lambda inputs, device: False)
    split = InMemory(torch.zeros(64, 3, 16, 16, dtype=torch.uint8), torch.arange(64) % 10)
    loader = make_loader(split, 8, shuffle=True, device=META, views=make_views(steps, classes=10))
    assert loader.inputs is split.inputs
    for batch in loader:
        assert (batch.inputs.device, batch.targets.device) == (META, META)


def test_half_of_a_gpus_free_memory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2000, 8000))
    cuda = torch.device("cuda", 0)
    assert loaders.fits(torch.zeros(250), cuda)
    assert not loaders.fits(torch.zeros(251), cuda)
    assert loaders.fits(torch.zeros(251), META)
