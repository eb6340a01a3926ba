"""What a model expects of its input: size, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, as_request
from limbeck.types import Inputs, flat


class Preprocess(nn.Module):
    """Resize images to one size, then (x − mean) / std by channel; so that each model gets pixels as it knows them.

    A grey image becomes as many channels as `mean` has. Of several inputs by name, those that are images, floating
    point of four dimensions, are prepared, and the others left as they are.

    Args:
        mean: One value a channel, on the scale 0–1; None subtracts nothing.
        std: One value > 0 a channel; None divides by nothing.
        size: Height and width in pixels, or one number for both; None leaves the size.

    Raises:
        RequestError: mean and std of different lengths, a std or a size that is not positive; when called, several
            inputs without an image among them.

    >>> Preprocess(mean=[0.5], std=[0.5], size=4)(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 1, 4, 4])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        with as_request(lambda reason: f"mean and std are lists of a number a channel: {reason}"):
            means = None if mean is None else [float(value) for value in mean]
            stds = None if std is None else [float(value) for value in std]
        mean = [0.0] * len(stds or [1]) if means is None else means
        std = [1.0] * len(mean) if stds is None else stds
        self.size = (size, size) if isinstance(size, int) else size
        if len(mean) != len(std):
            raise RequestError(f"mean has {len(mean)} values and std {len(std)}; give one a channel for both")
        if min(std) <= 0 or (self.size is not None and min(self.size) <= 0):
            raise RequestError(f"std and size must be positive: std {std}, size {size}")
        # Not persistent: what a model expects is configuration, and no part of its weights.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, inputs: Inputs) -> Inputs:
        """(B, C, H, W) on the scale 0–1 → the same, resized and normalised; or several inputs by name."""
        if isinstance(inputs, Tensor):
            return self._prepared(inputs)
        images = {name: self._prepared(value) for name, value in flat(inputs).items() if is_image(value)}
        if not images:
            raise RequestError(f"none of the inputs {', '.join(inputs)} is an image; leave mean, std and size out")
        return {**flat(inputs), **images}

    def _prepared(self, x: Tensor) -> Tensor:
        if self.size is not None and x.shape[-2:] != self.size:
            with torch.autocast(x.device.type, enabled=False):  # CPUs resize no bf16
                x = F.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=True)
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}, size={self.size}"


def is_image(value: Tensor) -> bool:
    """Whether an input (B, …) among several is one of images, which are resized and normalised."""
    return value.dim() == 4 and value.is_floating_point()


def preprocess(
    mean: Sequence[float] | None, std: Sequence[float] | None, size: int | tuple[int, int] | None
) -> Preprocess | None:
    """A Preprocess, or None where there is nothing to do."""
    return None if mean is None and std is None and size is None else Preprocess(mean, std, size)


def as_pixels(inputs: Tensor, shape: tuple[int, ...], size: int | None) -> Tensor:
    """Inputs as a file reads them that has the normalisation inside: in fp32, resized, grey ones in all its channels.

    Args:
        inputs: (B, ...) as the data have them, images from 0 to 1.
        shape: One sample's as the network gets it.
        size: Height and width that images are resized to; None leaves them.
    """
    resized = preprocess(None, None, size)
    x: Tensor = inputs.float()
    x = x if resized is None else resized(x)
    grey = len(shape) == 3 and x.shape[1] == 1 != shape[0]
    return x.expand(-1, shape[0], -1, -1) if grey else x
