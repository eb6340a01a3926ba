"""What pixels a model expects: read from its graph, its layers or its configuration, and applied once.

limbeck's images are floats from 0 to 1. What brings them to what a model knows is always a mean and a standard
deviation on that scale: pixels from 0 to 255 are (x − 0) / (1/255).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from limbeck.models.named_inputs import NamedInputs
from limbeck.models.preprocess import Preprocess

BYTES = (20, 600)
"""Mean or standard deviation, of pixels as a model's first weights get them, from which to which they are 0–255."""


@dataclass(frozen=True)
class Pixels:
    """What pixels a model expects.

    Attributes:
        mean: By channel, on the scale 0–1.
        std: Likewise.
        where: What says so, as "its input is of uint8".
        sure: Whether they can only be meant so; of a configuration that comes with untrained weights too, none can say.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    where: str
    sure: bool = True

    @classmethod
    def up_to_255(cls, channels: int, where: str, least: int = 0) -> Pixels:
        """Pixels from `least` on, in 256 steps of 1."""
        return cls((-least / 255,) * channels, (1 / 255,) * channels, where)

    def preprocess(self) -> Preprocess:
        """What brings images from 0–1 to them."""
        return Preprocess(self.mean, self.std)

    def __str__(self) -> str:
        if all(abs(255 * std - 1) < 1e-6 for std in self.std):
            least = round(-255 * self.mean[0])
            return f"pixels from {least} to {255 + least}"
        mean, std = ([round(value, 3) for value in values] for values in (self.mean, self.std))
        return f"pixels of mean {mean} and standard deviation {std} subtracted and divided"

    @property
    def option(self) -> str:
        """What somebody gives who wants them so."""
        if all(abs(255 * std - 1) < 1e-6 for std in self.std) and not any(self.mean):
            return f"std=[1/255]{f' * {len(self.std)}' if len(self.std) > 1 else ''}"
        mean, std = ([round(value, 4) for value in values] for values in (self.mean, self.std))
        return f"mean={mean}, std={std}"


@runtime_checkable
class ReadsPixels(Protocol):
    """A model that knows what pixels it expects, and whether it reads floats alone."""

    @property
    def reads_floats(self) -> bool:
        """Whether it reads no whole numbers."""

    def expected_pixels(self, images: Tensor) -> Pixels | None:
        """What is read from it, for images (B, C, H, W); None where nothing is."""


def pixels_of(model: nn.Module, images: Tensor) -> Pixels | None:
    """What pixels a model expects; None where nothing can be read from it, or these are no images from 0 to 1.

    Args:
        model: Of any framework; limbeck's builder leaves on a pretrained one, as `pixels`, what it was trained on.
        images: (B, C, H, W) as they come.
    """
    if images.dim() < 4 or not images.is_floating_point() or not images.numel():
        return None
    low, high = torch.aminmax(images)
    if low < 0 or high > 1:
        return None
    if isinstance(model, ReadsPixels):
        return model.expected_pixels(images)
    known = vars(model).get("pixels", ...)
    return known if known is None or isinstance(known, Pixels) else configured(model, images.shape[1], sure=False)


def configured(model: Any, channels: int, sure: bool = True) -> Pixels | None:
    """What the configuration of timm says that a model's weights were trained on."""
    config = getattr(model, "pretrained_cfg", None)
    mean, std = (config.get(name) for name in ("mean", "std")) if isinstance(config, dict) else (None, None)
    if not mean or not std or (not any(mean) and set(std) == {1}):
        return None
    mean, std = (_spread(values, channels) for values in (mean, std))
    return Pixels(mean, std, "its pretrained_cfg says", sure) if mean and std else None


def normalises(inputs: nn.Module | None) -> bool:
    """Whether what prepares the inputs sees to the values of pixels too, and not to sizes and names alone."""
    if inputs is None or isinstance(inputs, NamedInputs):
        return False
    if isinstance(inputs, nn.Sequential):
        return any(normalises(one) for one in inputs)
    return not isinstance(inputs, Preprocess) or bool(inputs.mean.any()) or bool((inputs.std != 1).any())


def measured(zero: Tensor, one: Tensor, channels: int, where: str) -> Pixels | None:
    """The range of pixels, by what a model's first weights get of images that are 0, and 1, everywhere.

    What comes before them is (x − mean) / std by all that is seen; so it shows its mean and its std.
    """
    slope = (one - zero).double()
    moved = slope.isfinite() & (slope != 0)
    if not moved.any():
        return None
    std = float((1 / slope[moved].abs()).median())
    mean = float((-zero.double()[moved] / slope[moved]).median())
    low, high = BYTES
    return Pixels.up_to_255(channels, where) if low <= max(std, mean) <= high else None


def _spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Values by channel for so many channels; their mean where grey images are read by a network for colour."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels if 1 in (channels, len(values)) else ()
