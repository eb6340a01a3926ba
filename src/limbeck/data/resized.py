"""Cuts of a random size and shape, brought back to the image's own size: the crop of ImageNet's protocol."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError

TRIES = 10
"""How often a size is drawn until it lies inside the image; after that the largest cut in the middle is taken."""


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a random share of the image at a random shape and place, and resize it to the image's size.

    The share is uniform between `smallest` and 1, the logarithm of width over height uniform between −log `ratio` and
    log `ratio`, the place uniform; resized bilinearly, with antialiasing where it shrinks. As torchvision's
    RandomResizedCrop, but of the image as the data set gives it.

    Args:
        smallest: Least share of the image's area, above 0 and at most 1.
        ratio: Largest ratio of the sides, 1 or more.

    Source: Szegedy et al.: Going Deeper with Convolutions, arXiv:1409.4842.
    """

    smallest: float = 0.08
    ratio: float = 4 / 3
    draws: ClassVar[int] = 2 * TRIES + 2

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise RequestError(f"resized_crop: smallest must lie above 0 and not above 1, not {self.smallest}")
        if not 1 <= self.ratio < math.inf:
            raise RequestError(f"resized_crop: ratio must be 1 or more, not {self.ratio}")

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        size = (images.shape[2], images.shape[3])
        cuts = zip(images, self.boxes(numbers, *size).tolist(), strict=True)
        made = [
            F.interpolate(
                image[None, :, top : top + height, left : left + width].float(),
                size=size,
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
            for image, (top, left, height, width) in cuts
        ]
        joined = torch.cat(made)
        return joined.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else joined.to(images.dtype)

    def boxes(self, numbers: Tensor, height: int, width: int) -> Tensor:
        """The cuts (B, 4) by the numbers (B, draws): top, left, height, width.

        The first 2 · TRIES numbers are shares and shapes, the last two the place.
        """
        drawn = numbers.double()
        areas = (self.smallest + (1 - self.smallest) * drawn[:, 0:-2:2]) * height * width
        shapes = (math.log(self.ratio) * (2 * drawn[:, 1:-2:2] - 1)).exp()
        widths, heights = (areas * shapes).sqrt().round(), (areas / shapes).sqrt().round()
        inside = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
        first = inside.int().argmax(1, keepdim=True)
        found = torch.cat([heights.gather(1, first), widths.gather(1, first)], 1)
        cut = found.where(inside.any(1, keepdim=True), torch.tensor(self._middle(height, width), dtype=torch.float64))
        free = torch.tensor([height, width], dtype=torch.float64) - cut
        place = (drawn[:, -2:] * (free + 1)).floor()
        place = place.where(inside.any(1, keepdim=True), (free / 2).floor())
        return torch.cat([place, cut], 1).long()

    def _middle(self, height: int, width: int) -> tuple[float, float]:
        """Height and width of the largest cut of a permitted shape."""
        if width < height / self.ratio:
            return float(round(width * self.ratio)), float(width)
        if width > height * self.ratio:
            return float(height), float(round(height * self.ratio))
        return float(height), float(width)
