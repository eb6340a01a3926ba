"""Made images of ImageNet-1k's form, to estimate with: limbeck plan benchmarks/imagenet-1k.yaml --samples 1281167."""

from __future__ import annotations

import torch

from limbeck.data import DataSet, InMemory

CLASSES = 1000


def made() -> DataSet:
    """128 training and 8 test images of noise, 3×224×224."""
    pixels = torch.randint(0, 256, (136, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(136) % CLASSES
    return DataSet(
        "made", InMemory(pixels[:128], targets[:128]), InMemory(pixels[128:], targets[128:]), CLASSES, (3, 224, 224)
    )
