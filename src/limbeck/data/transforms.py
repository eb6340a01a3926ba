"""Augmentations that limbeck does not have itself: torchvision's transforms by name, and the user's own functions.

They draw from the global generators, as such code does. Those are seeded for each sample anew by its draws, so that a
view of it stays a function of (seed, view, index); and they run on the CPU, whose generators are the same everywhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from limbeck.errors import RequestError, as_request, unknown
from limbeck.imports import load_object
from limbeck.options import fitting
from limbeck.seeds import seeded
from limbeck.types import send

TORCHVISION = "torchvision"
_OF_BATCHES = ("CutMix", "MixUp")
"""Transforms of torchvision that take labels too; those of limbeck are mixup and cutmix."""


@dataclass(frozen=True)
class Transform:
    """A function of one image, applied to each image of a batch by itself.

    Args:
        name: What it is called in a recipe.
        apply: From an image (C, H, W), uint8 of 0–255 or float of 0–1, to another one of the same shape and dtype.
    """

    name: str
    apply: Callable[[Tensor], Tensor]
    draws: ClassVar[int] = 2

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        changed = [self._one(image, _seed(two)) for image, two in zip(images.cpu(), numbers, strict=True)]
        return send(torch.stack(changed), images.device) if changed else images

    def _one(self, image: Tensor, seed: int) -> Tensor:
        with seeded(seed), as_request(lambda reason: f"augmentation {self.name}: {reason}"):
            found = self.apply(image.clone())
        if not isinstance(found, Tensor) or found.shape != image.shape or found.dtype != image.dtype:
            given = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
            raise RequestError(
                f"augmentation {self.name} makes {given} of an image {tuple(image.shape)} of {image.dtype}; it must "
                "keep shape and dtype"
            )
        return found


def transform(name: str, options: Any) -> Transform:
    """A step of `data.augment` whose name has a colon.

    Args:
        name: "torchvision:NAME" of torchvision.transforms.v2, or "package.module:name" of a function of an image and
            options, of a class that is made with them, or of an object that is called with an image.
        options: By name; or the value of the first one.

    Raises:
        RequestError: There is no such object, or it does not take the options.
    """
    source, _, inner = name.partition(":")
    what = f"augmentation {name}"
    maker = _of_torchvision(inner) if source == TORCHVISION else load_object(name, "augmentation")
    if not callable(maker):
        raise RequestError(f"{what} is {type(maker).__name__}; name a function, or a class whose objects are called")
    with as_request(lambda reason: f"{what}: {reason}"):
        if isinstance(maker, type):
            made = maker(**fitting(what, maker, _by_name(maker, options, 0), given={"self"}))
        else:
            made = _function(what, maker, options)
    return Transform(name, made)


def _function(what: str, function: Callable[..., Any], options: Any) -> Callable[[Tensor], Tensor]:
    """A function of an image with its options."""
    given = _by_name(function, options, 1)
    first = next(iter(inspect.signature(function).parameters), "image")
    return functools.partial(function, **fitting(what, function, given, given={first})) if given else function


def _of_torchvision(name: str) -> type:
    from torchvision.transforms import v2

    found = getattr(v2, name, None)
    if isinstance(found, type) and issubclass(found, v2.Transform) and name not in _OF_BATCHES:
        return found
    kinds = [one for one in vars(v2).values() if isinstance(one, type) and issubclass(one, v2.Transform)]
    raise unknown("torchvision transform", name, sorted({one.__name__ for one in kinds} - {*_OF_BATCHES, "Transform"}))


def _by_name(maker: Callable[..., Any], options: Any, skip: int) -> Mapping[str, Any]:
    """Options by their names; a single value is that of the first."""
    if isinstance(options, Mapping):
        return options
    names = list(inspect.signature(maker).parameters)[skip:]
    if not names:
        raise RequestError(f"augmentation {getattr(maker, '__name__', maker)} takes no options, and has {options!r}")
    return {names[0]: options}


def _seed(numbers: Tensor) -> int:
    """48 bits of two numbers of 24 each."""
    high, low = (int(number * 2**24) for number in numbers.double())
    return high << 24 | low
