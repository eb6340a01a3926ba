"""Data sets for machines without any: made, of a real one's shapes, and such that they can be learned."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_pil_image

from limbeck.data import DataSet, InMemory
from limbeck.recipes import schema
from limbeck.runs import components

SAMPLES_BY_NAME = "LIMBECK_GPU_MADE"
"""Environment variable with the numbers of training and test samples of `cifar100`, which a recipe names."""


def learnable(
    name: str, shape: tuple[int, int, int], classes: int, train: int, test: int, *, noise: float = 1.0
) -> DataSet:
    """Images of classes that resemble one another in groups of five, as CIFAR-100's do; shifted, and noisy.

    Args:
        name: Whose shapes they have.
        shape: (C, H, W) of an image.
        classes: Number of classes.
        train: Number of training samples.
        test: Number of test samples.
        noise: Standard deviation of a pixel, as a share of that of the patterns.
    """
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape

    def patterns(number: int) -> Tensor:
        coarse = torch.randn(number, channels, 6, 6, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)

    groups = patterns(-(-classes // 5))
    centres = groups[torch.arange(classes) // 5] + 0.7 * patterns(classes)

    def split(samples: int) -> InMemory:
        targets = torch.randperm(samples, generator=generator) % classes
        images = torch.empty(samples, *shape, dtype=torch.uint8)
        for at in torch.split(torch.arange(samples), 5000):
            some = centres[targets[at]]
            shifts = torch.randint(-4, 5, (len(at), 2), generator=generator)
            some = _rolled(some, shifts) + noise * torch.randn(some.shape, generator=generator)
            images[at] = (128 + 48 * some).clamp(0, 255).to(torch.uint8)
        return InMemory(images, targets)

    return DataSet(f"made, of the shapes of {name}", split(train), split(test), classes, shape)


def _rolled(images: Tensor, shifts: Tensor) -> Tensor:
    """Each image moved by its own shift (down, right); what leaves it comes in at the other side."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height) - shifts[:, :1]) % height
    columns = (torch.arange(width) - shifts[:, 1:]) % width
    number = torch.arange(len(images))
    return images[number[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cifar100() -> DataSet:
    """What stands in for CIFAR-100, as a recipe names it: data.name: benchmarks.gpu.made:cifar100."""
    train, test = map(int, os.environ.get(SAMPLES_BY_NAME, "50000 10000").split())
    return learnable("CIFAR-100", (3, 32, 32), 100, train, test, noise=2.0)


def real(spec: schema.Data, root: Path | None, folder: str) -> DataSet | None:
    """A data set that lies in the root, and None where it does not: nothing is fetched.

    Args:
        spec: What a recipe says of it.
        root: Where data sets lie.
        folder: What torchvision calls its folder there.
    """
    if root is None or not (root / folder).is_dir():
        return None
    return components.data(spec, root)


class AsTorchvision(Dataset[tuple[Any, int]]):
    """Samples as torchvision's data sets give them, each decoded to a PIL image and transformed when it is read."""

    def __init__(self, split: InMemory, transform: Any) -> None:
        self.images, self.targets, self.transform = split.tensor.permute(0, 2, 3, 1).numpy(), split.targets, transform

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self.transform(to_pil_image(self.images[number])), int(self.targets[number])

    def __len__(self) -> int:
        return len(self.targets)
