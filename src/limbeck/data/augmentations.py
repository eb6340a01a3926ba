"""Augmentations of a batch of images: tensors in, tensor out; all randomness comes in as numbers in [0, 1).

Each is a small frozen object: `draws` says how many numbers a sample it takes, and calling it with images (B, C, H, W),
uint8 of 0–255 or float of 0–1, and those numbers (B, draws) gives the augmented images in the same form. The numbers
lie on the CPU, so that what depends on them can be decided there; the images lie where they are trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.types import send

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in a grey image (ITU-R BT.601)."""


class Augmentation(Protocol):
    """What a view is made of."""

    @property
    def draws(self) -> int: ...

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Crop:
    """Pad with one colour on each side, and cut an image of the old size out at a random place.

    Args:
        padding: Pixels on each side, 1 or more.
        fill: The colour, 0–255; black by default.
    """

    padding: int = 4
    fill: int = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise RequestError(f"crop: padding must be 1 or more pixels, not {self.padding}")
        check_fill("crop", self.fill)

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        height, width = images.shape[2:]
        numbers = send(numbers, images.device)
        padded = torch.nn.functional.pad(images, [self.padding] * 4, value=_level(self.fill, images))
        top, left = (numbers * (2 * self.padding + 1)).long().unbind(1)
        rows = top[:, None] + torch.arange(height, device=top.device)
        columns = left[:, None] + torch.arange(width, device=left.device)
        sample = torch.arange(len(images), device=top.device)
        cut = padded.permute(0, 2, 3, 1)[sample[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Flip:
    """Mirror left and right.

    Args:
        probability: Share of the images that are mirrored, 0–1.
    """

    probability: float = 0.5
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_share("flip: probability", self.probability)

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        return torch.where((send(numbers, images.device) < self.probability)[:, :, None, None], images.flip(3), images)


@dataclass(frozen=True)
class Cutout:
    """Cover a square at a random place; where it reaches over the edge, only its part inside.

    Args:
        size: Its side in pixels, 1 or more.
        fill: Its colour, 0–255; black by default. The paper's images are normalised before, so that theirs is the mean.

    Source: DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, arXiv:1708.04552.
    """

    size: int = 16
    fill: int = 0
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RequestError(f"cutout: size must be 1 or more pixels, not {self.size}")
        check_fill("cutout", self.fill)

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        height, width = images.shape[2:]
        numbers = send(numbers, images.device)
        rows = self._covered(numbers[:, 0], height)
        columns = self._covered(numbers[:, 1], width)
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], _level(self.fill, images))

    def _covered(self, number: Tensor, length: int) -> Tensor:
        first = (number * length).long()[:, None] - self.size // 2
        place = torch.arange(length, device=number.device)
        return (place >= first) & (place < first + self.size)


@dataclass(frozen=True)
class Jitter:
    """Change brightness, contrast and saturation, each by a random factor between 1 − strength and 1 + strength.

    Args:
        brightness: Strength, 0–1; 0 leaves it out.
        contrast: Likewise, toward the image's mean grey.
        saturation: Likewise, toward the grey image; grey images have none.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _check_share(f"jitter: {name}", getattr(self, name))

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        strengths = torch.tensor([self.brightness, self.contrast, self.saturation])
        factors = send(1 + strengths * (2 * numbers - 1), images.device)
        brightness, contrast, saturation = factors.T[:, :, None, None, None]
        x = (x * brightness).clamp(0, 1)
        x = torch.lerp(_grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, contrast).clamp(0, 1)
        x = torch.lerp(_grey(x).expand_as(x), x, saturation).clamp(0, 1)
        return (x * 255).round().to(torch.uint8) if images.dtype == torch.uint8 else x


def _grey(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * send(torch.tensor(LUMA), x.device).view(3, 1, 1)).sum(1, keepdim=True)


def check_fill(name: str, value: int) -> None:
    """Raise RequestError for a colour that is not 0–255."""
    if not 0 <= value <= 255:
        raise RequestError(f"{name}: fill must lie between 0 and 255, not {value}")


def _level(fill: int, images: Tensor) -> float:
    """A colour of 0–255 on the scale of the images."""
    return fill if images.dtype == torch.uint8 else fill / 255


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise RequestError(f"{name} must lie between 0 and 1, not {value}")
