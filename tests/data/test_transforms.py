"""Augmentations by torchvision's names and by the user's own functions: views are functions of (seed, view, index)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from limbeck import RequestError
from limbeck.data import FromDisk, InMemory, make_loader, make_views
from limbeck.data.draws import draws
from limbeck.seeds import seeded
from limbeck.sources import names_in, own_modules

OWN = '''
import random

import numpy as np
import torch


def noise(image, strength=9):
    """From all three generators."""
    numbers = [torch.rand(()).item(), float(np.random.rand()), random.random()]
    return (image.float() + strength * sum(numbers)).clamp(0, 255).to(image.dtype)


class Shift:
    def __init__(self, most):
        self.most = most

    def __call__(self, image):
        return image.roll(int(torch.randint(self.most, ())), dims=-1)


def halved(image):
    return image[:, ::2]


def wrong(image):
    raise ValueError("no such image")


fixed = Shift(3)
NUMBER = 3
'''
STEPS = [
    "own_transforms:noise",
    {"own_transforms:Shift": {"most": 5}},
    {"torchvision:RandomRotation": {"degrees": 20}},
    {"torchvision:ColorJitter": {"brightness": 0.5}},
]


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_transforms.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def images(count: int = 10, size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_index(loader, epoch: int) -> dict[int, torch.Tensor]:
    loader.set_epoch(epoch)
    return {int(i): x for batch in loader for i, x in zip(batch.index, batch.inputs, strict=True)}


def test_a_view_depends_on_seed_view_and_index_alone() -> None:
    split, views = InMemory(images(), torch.arange(10) % 4), make_views(STEPS, seed=3)
    first = by_index(make_loader(split, 4, shuffle=True, seed=0, views=views), 2)
    torch.rand(7), np.random.rand(), random.random()  # what else was drawn meanwhile plays no part
    again = by_index(make_loader(split, 3, shuffle=True, seed=7, views=views), 2)
    assert all(torch.equal(first[i], again[i]) for i in range(10))
    other_view, other_seed = by_index(make_loader(split, 4, views=views), 3), make_views(STEPS, seed=4)
    for changed in (other_view, by_index(make_loader(split, 4, views=other_seed), 2)):
        assert sum(not torch.equal(first[i], changed[i]) for i in range(10)) > 7


def test_samples_differ_and_the_generators_are_left_alone() -> None:
    same = images(1).expand(10, -1, -1, -1)
    views = make_views(["own_transforms:noise"])
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    changed = views.images(same, torch.arange(10), 0)
    assert len({image.sum().item() for image in changed}) > 7
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_torchvision_transform_gives_what_torchvision_gives_at_that_seed() -> None:
    pixels = images(4)
    views = make_views([{"torchvision:RandomRotation": 30}], seed=5)
    numbers = draws(5, 1, torch.arange(4), 2, "step 0").double()
    changed = views.images(pixels, torch.arange(4), 1)
    for image, found, (high, low) in zip(pixels, changed, numbers.tolist(), strict=True):
        with seeded(int(high * 2**24) * 2**24 + int(low * 2**24)):
            assert torch.equal(found, v2.RandomRotation(30)(image))


def test_workers_and_files_see_the_same_pixels() -> None:
    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return images()[i], 0

    views = make_views([*STEPS[2:], "own_transforms:fixed"], seed=3)
    inside = by_index(make_loader(InMemory(images(), torch.zeros(10).long()), 5, views=views), 1)
    files = by_index(make_loader(FromDisk(Files(), torch.zeros(10).long(), "x"), 5, views=views), 1)
    assert all(torch.equal(inside[i], files[i]) for i in range(10))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("torchvision:RandomRotatoin", "unknown torchvision transform 'RandomRotatoin'; did you mean RandomRotation"),
        ("torchvision:MixUp", "unknown torchvision transform 'MixUp'"),
        ({"torchvision:RandomRotation": {"degres": 3}}, "'degres'; did you mean degrees"),
        ("torchvision:RandomRotation", "augmentation torchvision:RandomRotation: .*degrees"),
        ("own_transforms:nois", "unknown name in own_transforms 'nois'; did you mean noise"),
        ({"own_transforms:noise": {"strenth": 3}}, "'strenth'; did you mean strength"),
        ("own_transforms:NUMBER", "own_transforms:NUMBER is int; name a function"),
        ({"own_transforms:wrong": 3}, "takes no options"),
        ("no_such_module:x", "augmentation 'no_such_module:x': cannot import"),
    ],
)
def test_what_does_not_fit_is_said(step: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_views([step])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("own_transforms:halved", r"makes \(3, 6, 12\) of torch.uint8 of an image \(3, 12, 12\).* must keep shape"),
        ("own_transforms:wrong", "augmentation own_transforms:wrong: no such image"),
        ("torchvision:ToPILImage", "makes Image of an image"),
    ],
)
def test_what_a_transform_makes_is_checked(step: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_views([step]).images(images(2), torch.arange(2), 0)


def test_the_source_of_a_step_with_options_is_part_of_a_runs_identity() -> None:
    steps = [{"own_transforms:noise": {"strength": 3}}]
    assert list(own_modules(names_in(steps))) == ["own_transforms"]
