"""Small data sets and networks of every task, for recipes that name them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory
from limbeck.tasks import Embedding, MultiLabel, Regression, Segmentation, TokenClassification


def split(x: Tensor, y: Tensor, held_out: int) -> tuple[InMemory, InMemory]:
    return InMemory(x[:-held_out], y[:-held_out]), InMemory(x[-held_out:], y[-held_out:])


def diabetes() -> DataSet:
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = 20 * torch.tensor(x[order], dtype=torch.float32), torch.tensor(y[order], dtype=torch.float32) / 100
    return DataSet("diabetes", *split(x, y, 100), classes=1, input_shape=(10,), task=Regression())


def labels() -> DataSet:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(400, 6, generator=g)
    y = (x @ torch.randn(6, 4, generator=g) > 0.5).float()
    return DataSet("labels", *split(x, y, 100), classes=4, input_shape=(6,), task=MultiLabel())


def masks() -> DataSet:
    """Bright squares on noise; the border of each image belongs to no class."""
    g = torch.Generator().manual_seed(2)
    x, y = torch.rand(160, 1, 12, 12, generator=g) / 3, torch.zeros(160, 12, 12, dtype=torch.long)
    for image, mask in zip(x, y, strict=True):
        top, left = torch.randint(1, 7, (2,), generator=g).tolist()
        image[:, top : top + 4, left : left + 4] += 0.6
        mask[top : top + 4, left : left + 4] = 1
    y[:, 0], y[:, -1] = 255, 255
    return DataSet("masks", *split(x, y, 40), classes=2, input_shape=(1, 12, 12), task=Segmentation(ignore_index=255))


def tokens() -> DataSet:
    g = torch.Generator().manual_seed(3)
    x = torch.randint(0, 12, (240, 7), generator=g)
    y = (x + x.roll(1, 1)) % 3
    y[:, 0] = -100
    return DataSet("tokens", *split(x, y, 60), classes=3, input_shape=(7,), task=TokenClassification())


def vectors() -> DataSet:
    g = torch.Generator().manual_seed(4)
    x = torch.randn(300, 8, generator=g)
    return DataSet("vectors", *split(x, torch.full((300,), -100), 80), classes=5, input_shape=(8,), task=Embedding())


def pixels(*, input_shape: Any, classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, classes, 1),
    )  # fmt: skip


def reader(*, input_shape: Any, classes: int, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(12, width), Neighbours(), nn.Linear(2 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, classes)
    )


class Neighbours(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.roll(1, 1)], -1)


def encoder(*, input_shape: Any, classes: int, width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, classes))


def trained_encoder(*, input_shape: Any, classes: int) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(9)
        return encoder(input_shape=input_shape, classes=classes, width=64)
