"""Random-resized crops: torchvision's cut for the same numbers, its pixels, and a function of (seed, view, index)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from limbeck.data.resized import ResizedCrop
from limbeck.data.views import make_views
from limbeck.errors import RequestError


def torchvisions(
    monkeypatch: pytest.MonkeyPatch, numbers: Tensor, size: tuple[int, int], smallest: float, ratio: float
) -> list[int]:
    """The cut that torchvision draws where its random numbers are these."""
    drawn: Iterator[float] = iter(numbers[:-2].tolist())
    place: Iterator[float] = iter(numbers[-2:].tolist())
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "uniform_", lambda self, low, high: self.fill_(low + (high - low) * next(drawn)))
        patch.setattr(torch, "randint", lambda low, high, size: torch.tensor([low + int(next(place) * (high - low))]))
        return list(RandomResizedCrop.get_params(torch.empty(3, *size), [smallest, 1.0], [1 / ratio, ratio]))


@pytest.mark.parametrize(("smallest", "ratio"), [(0.08, 4 / 3), (0.5, 1.0), (1.0, 1.5), (0.9, 3.0)])
@pytest.mark.parametrize("size", [(32, 32), (24, 40), (20, 61), (61, 20)])
def test_the_cut_is_torchvisions(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], smallest: float, ratio: float
) -> None:
    """Also where no draw fits, and the largest cut in the middle is taken."""
    numbers = torch.rand(40, ResizedCrop.draws)
    boxes = ResizedCrop(smallest, ratio).boxes(numbers, *size)
    for one, box in zip(numbers, boxes, strict=True):
        assert box.tolist() == torchvisions(monkeypatch, one, size, smallest, ratio)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_the_pixels_are_torchvisions(size: tuple[int, int], kind: torch.dtype) -> None:
    images = torch.randint(256, (12, 3, *size), dtype=torch.uint8) if kind == torch.uint8 else torch.rand(12, 3, *size)
    numbers = torch.rand(12, ResizedCrop.draws)
    crop = ResizedCrop(0.08)
    made = crop(images, numbers)
    assert made.dtype == kind
    for image, cut, box in zip(images, made, crop.boxes(numbers, *size).tolist(), strict=True):
        expected = resized_crop(image, *box, list(size), antialias=True)
        assert torch.allclose(cut.float(), expected.float(), atol=1 if kind == torch.uint8 else 1e-5, rtol=0)
        assert kind != torch.uint8 or (cut != expected).float().mean() < 0.01  # halves may be rounded either way


def test_a_view_is_a_function_of_seed_view_and_index() -> None:
    images, index = torch.rand(5, 3, 16, 16), torch.tensor([4, 9, 2, 7, 1])
    views = make_views(["resized_crop", "flip"], seed=3)
    whole = views.images(images, index, 2)
    alone = views.images(images[2:3], index[2:3], 2)
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole, views.images(images, index, 3))
    assert not torch.equal(whole, make_views(["resized_crop", "flip"], seed=4).images(images, index, 2))


def test_shares_are_uniform() -> None:
    boxes = ResizedCrop(0.25, 1.0).boxes(torch.rand(4000, ResizedCrop.draws), 100, 100)
    shares = (boxes[:, 2] * boxes[:, 3]).double() / 1e4
    assert shares.mean().item() == pytest.approx(0.625, abs=0.015)
    assert shares.std().item() == pytest.approx(0.75 / 12**0.5, abs=0.01)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"smallest": 0}, "smallest must lie above 0"), ({"ratio": 0.5}, "ratio must be 1 or more"), (1.5, "smallest")],
)
def test_wrong_options(option: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_views([{"resized_crop": option}])
