"""What pixels from outside of an image become, and shears, against torchvision and the Python Imaging Library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from limbeck.data.augmentations import Crop, Cutout
from limbeck.data.policies import AutoAugment, moving
from limbeck.data.shears import shear
from limbeck.errors import RequestError
from limbeck.recipes.read import read

IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("images", [IMAGES, IMAGES.float() / 255], ids=["uint8", "float"])
def test_crop_pads_and_cutout_covers_with_the_fill(images: torch.Tensor) -> None:
    level = 128 if images.dtype == torch.uint8 else 128 / 255
    corner = torch.zeros(3, 2)  # the first crop of all; the square around the first pixel
    wanted = F.pad(images, [4] * 4, value=level)[:, :, :16, :16]
    assert torch.equal(Crop(fill=128)(images, corner), wanted)
    covered = Cutout(size=4, fill=128)(images, corner)
    assert (covered[:, :, :2, :2] == torch.tensor(level, dtype=images.dtype)).all()
    assert torch.equal(covered[:, :, 2:], images[:, :, 2:])


@pytest.mark.parametrize("vertical", [False, True])
@pytest.mark.parametrize("slope", [0.3, -0.3, 0.1, 0.0])
def test_shears_are_those_of_pil(slope: float, vertical: bool) -> None:
    moved = shear(IMAGES, slope, vertical=vertical, fill=128)
    affine = (1, 0, 0, slope, 1, 0) if vertical else (1, slope, 0, 0, 1, 0)
    for image, own in zip(IMAGES, moved, strict=True):
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).transform(
            (16, 16), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
        )
        difference = np.abs(np.asarray(theirs).astype(int) - own.permute(1, 2, 0).numpy().astype(int))
        assert difference.max() <= 1


def test_what_comes_from_outside_has_the_fill() -> None:
    for name, strength in (("translate-x", 5.0), ("translate-y", -5.0), ("rotate", 30.0), ("shear-x", 0.3)):
        white = torch.full_like(IMAGES, 255)
        for cubic in (False, True):
            assert moving(128, cubic)[name].apply(white, strength).unique().tolist() == [128, 255], name


def test_a_fill_is_a_colour() -> None:
    for make in (Crop, Cutout, AutoAugment):
        with pytest.raises(RequestError, match="fill must lie between 0 and 255, not 300"):
            make(fill=300)


@pytest.mark.parametrize("name", ["byot-resnet18", "byot-resnet50"])
def test_byots_images_are_filled_with_grey(name: str) -> None:
    """The authors: RandomCrop(32, padding=4, fill=128), CIFAR10Policy of fill 128 and bicubic shears, Cutout before
    Normalize, so in black."""
    crop, _, policy, cutout = read(name).data.augment
    assert crop == {"crop": {"fill": 128}}
    assert policy == {"autoaugment": {"fill": 128, "shear": "cubic"}}
    assert cutout == {"cutout": 16}
