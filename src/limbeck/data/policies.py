"""AutoAugment and RandAugment on batches: samples that drew the same operation go through it together.

The operations are torchvision's; here stands which sample gets which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from limbeck.data.augmentations import check_fill
from limbeck.data.shears import shear
from limbeck.errors import RequestError
from limbeck.types import send


@dataclass(frozen=True)
class Operation:
    """One change of an image.

    Attributes:
        apply: From uint8 images (B, C, H, W) and a strength to the changed images.
        strength: The strength at a share (0–1) of the largest magnitude, for images of a width.
        signed: Whether half of the samples get the negative strength.
        vertical: Whether the height counts instead of the width.
    """

    apply: Callable[[Tensor, float], Tensor]
    strength: Callable[[float, int], float] = lambda share, width: 0.0
    signed: bool = False
    vertical: bool = False


def _affine(images: Tensor, shift: list[int], shear: list[float], center: list[float] | None, fill: int) -> Tensor:
    changed: Tensor = tv.affine(images, 0.0, shift, 1.0, shear, center=center, fill=[float(fill)])
    return changed


def _shear(slope: float) -> float:
    return math.degrees(math.atan(slope))


def _slope(share: float, width: int) -> float:
    return 0.3 * share


def _shift(share: float, width: int) -> float:
    return 150 / 331 * width * share


def _factor(share: float, width: int) -> float:
    return 0.9 * share


CORNER = [0.0, 0.0]


def moving(fill: int, cubic: bool) -> dict[str, Operation]:
    """The operations that move pixels, with what they fill the rest with, and how shears interpolate."""
    sheared = {
        "shear-x": lambda x, s: _affine(x, [0, 0], [_shear(s), 0.0], CORNER, fill),
        "shear-y": lambda x, s: _affine(x, [0, 0], [0.0, _shear(s)], CORNER, fill),
    }
    if cubic:
        sheared = {
            "shear-x": lambda x, s: shear(x, s, vertical=False, fill=fill),
            "shear-y": lambda x, s: shear(x, s, vertical=True, fill=fill),
        }
    return {
        **{name: Operation(apply, _slope, signed=True) for name, apply in sheared.items()},
        "translate-x": Operation(lambda x, s: _affine(x, [int(s), 0], [0.0, 0.0], None, fill), _shift, signed=True),
        "translate-y": Operation(lambda x, s: _affine(x, [0, int(s)], [0.0, 0.0], None, fill), _shift, True, True),
        "rotate": Operation(lambda x, s: tv.rotate(x, s, fill=[float(fill)]), lambda share, width: 30 * share, True),
    }


OPERATIONS = {
    **moving(0, cubic=False),
    "brightness": Operation(lambda x, s: tv.adjust_brightness(x, 1 + s), _factor, signed=True),
    "color": Operation(lambda x, s: tv.adjust_saturation(x, 1 + s), _factor, signed=True),
    "contrast": Operation(lambda x, s: tv.adjust_contrast(x, 1 + s), _factor, signed=True),
    "sharpness": Operation(lambda x, s: tv.adjust_sharpness(x, 1 + s), _factor, signed=True),
    "posterize": Operation(lambda x, s: tv.posterize(x, int(s)), lambda share, width: 8 - round(4 * share)),
    "solarize": Operation(lambda x, s: tv.solarize(x, s), lambda share, width: 255 * (1 - share)),
    "autocontrast": Operation(lambda x, s: tv.autocontrast(x)),
    "equalize": Operation(lambda x, s: tv.equalize(x)),
    "invert": Operation(lambda x, s: tv.invert(x)),
    "identity": Operation(lambda x, s: x),
}

_CIFAR = """
invert 0.1 0, contrast 0.2 6; rotate 0.7 2, translate-x 0.3 9; sharpness 0.8 1, sharpness 0.9 3;
shear-y 0.5 8, translate-y 0.7 9; autocontrast 0.5 0, equalize 0.9 0; shear-y 0.2 7, posterize 0.3 7;
color 0.4 3, brightness 0.6 7; sharpness 0.3 9, brightness 0.7 9; equalize 0.6 0, equalize 0.5 0;
contrast 0.6 7, sharpness 0.6 5; color 0.7 7, translate-x 0.5 8; equalize 0.3 0, autocontrast 0.4 0;
translate-y 0.4 3, sharpness 0.2 6; brightness 0.9 6, color 0.2 8; solarize 0.5 2, invert 0.0 0;
equalize 0.2 0, autocontrast 0.6 0; equalize 0.2 0, equalize 0.6 0; color 0.9 9, equalize 0.6 0;
autocontrast 0.8 0, solarize 0.2 8; brightness 0.1 3, color 0.7 0; solarize 0.4 5, autocontrast 0.9 0;
translate-y 0.9 9, translate-y 0.7 9; autocontrast 0.9 0, solarize 0.8 3; equalize 0.8 0, invert 0.1 0;
translate-y 0.7 9, autocontrast 0.9 0
"""
"""The policy found on CIFAR-10: 25 pairs of operation, probability and magnitude of 0–9 (table 7 of the paper)."""


def _pairs(text: str) -> tuple[tuple[tuple[str, float, int], ...], ...]:
    def step(words: str) -> tuple[str, float, int]:
        name, probability, magnitude = words.split()
        return name, float(probability), int(magnitude)

    return tuple(tuple(step(words) for words in pair.split(",")) for pair in text.replace("\n", " ").split(";"))


CIFAR_POLICY = _pairs(_CIFAR)


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 pairs of operations for each image, each operation with its own probability: the policy for CIFAR-10.

    Args:
        fill: What pixels from outside of the image become, 0–255; widely used code for PyTorch has 128.
        shear: How shears interpolate: "nearest", or "cubic" as in that code.

    Source: Cubuk et al.: AutoAugment: Learning Augmentation Policies from Data, CVPR 2019, arXiv:1805.09501.
    """

    fill: int = 0
    shear: Literal["nearest", "cubic"] = "nearest"
    draws: ClassVar[int] = 5

    def __post_init__(self) -> None:
        check_fill("autoaugment", self.fill)

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        _check_pixels(images, "autoaugment")
        operations = OPERATIONS | moving(self.fill, self.shear == "cubic")
        chosen = (numbers[:, 0] * len(CIFAR_POLICY)).long()
        for place in (0, 1):
            acts, negative = numbers[:, 1 + place], numbers[:, 3 + place] < 0.5
            groups = []
            for number, pair in enumerate(CIFAR_POLICY):
                name, probability, magnitude = pair[place]
                groups.append((operations[name], magnitude / 9, (chosen == number) & (acts < probability)))
            images = _each_group(images, groups, negative)
        return images


@dataclass(frozen=True)
class RandAugment:
    """Some operations for each image, drawn from fourteen with equal probability, all at one magnitude.

    Args:
        operations: How many one after the other, 1 to 100: each costs time and numbers to draw.
        magnitude: 0–30.

    Source: Cubuk et al.: RandAugment: Practical automated data augmentation with a reduced search space,
        NeurIPS 2020, arXiv:1909.13719.
    """

    operations: int = 2
    magnitude: int = 9

    def __post_init__(self) -> None:
        if not 1 <= self.operations <= 100 or not 0 <= self.magnitude <= 30:
            raise RequestError(
                f"randaugment takes 1 to 100 operations and a magnitude of 0–30, not {self.operations} and "
                f"{self.magnitude}"
            )

    @property
    def draws(self) -> int:
        return 2 * self.operations

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        _check_pixels(images, "randaugment")
        kinds = [operation for name, operation in OPERATIONS.items() if name != "invert"]
        for place in range(self.operations):
            chosen = (numbers[:, 2 * place] * len(kinds)).long()
            groups = [(kind, self.magnitude / 30, chosen == number) for number, kind in enumerate(kinds)]
            images = _each_group(images, groups, numbers[:, 2 * place + 1] < 0.5)
        return images


def _each_group(images: Tensor, groups: Iterable[tuple[Operation, float, Tensor]], negative: Tensor) -> Tensor:
    """Each operation, at a share of its magnitude, on the samples of its mask (B,)."""
    result = images.clone()
    for operation, share, members in groups:
        strength = operation.strength(share, images.shape[-2 if operation.vertical else -1])
        signs = ((strength, members & ~negative), (-strength, members & negative))
        for signed_strength, some in signs if operation.signed else ((strength, members),):
            at = some.nonzero().squeeze(1)  # on the CPU, for a GPU would have to be waited for
            if len(at):
                at = send(at, images.device)
                result[at] = operation.apply(images[at], signed_strength)
    return result


def _check_pixels(images: Tensor, name: str) -> None:
    if images.dtype != torch.uint8:
        raise RequestError(f"{name} takes images of uint8 pixels, not {images.dtype}; leave it out")
    if images.shape[1] not in (1, 3):
        raise RequestError(
            f"{name} takes grey images or those of three channels, not of {images.shape[1]}; leave it out"
        )
