"""Mixing pairs of samples, images and labels alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.types import send


class Mixing(Protocol):
    """Joins each sample with a partner."""

    @property
    def draws(self) -> int: ...

    def __call__(self, images: Tensor, partners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mixed images, and the share (B,) of each that is left of the sample itself."""
        ...


@dataclass(frozen=True)
class Mixup:
    """x = λ·x₁ + (1 − λ)·x₂ with λ from Beta(strength, strength), and the labels likewise.

    Args:
        strength: Above 0; 1 draws λ evenly.

    Source: Zhang et al.: mixup: Beyond Empirical Risk Minimization, ICLR 2018, arXiv:1710.09412.
    """

    strength: float = 1.0
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check(self.strength, "mixup")

    def __call__(self, images: Tensor, partners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        share = send(_beta(numbers[:, 0], self.strength), images.device)
        return torch.lerp(partners, images, share[:, None, None, None]), share


@dataclass(frozen=True)
class CutMix:
    """A rectangle of each image is replaced by its partner's; the labels share by area.

    The area is 1 − λ of the image before it is clipped at the edges, λ from Beta(strength, strength).

    Args:
        strength: Above 0; 1 draws λ evenly.

    Source: Yun et al.: CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019, arXiv:1905.04899.
    """

    strength: float = 1.0
    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check(self.strength, "cutmix")

    def __call__(self, images: Tensor, partners: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        side = (1 - _beta(numbers[:, 0], self.strength)).sqrt()
        rows = send(_band(numbers[:, 1], side, images.shape[2]), images.device)
        columns = send(_band(numbers[:, 2], side, images.shape[3]), images.device)
        inside = rows[:, :, None] & columns[:, None, :]
        share = 1 - inside.float().mean((1, 2))
        return torch.where(inside[:, None], partners, images), share


def mixed_labels(targets: Tensor, partners: Tensor, share: Tensor, classes: int) -> Tensor:
    """(B, classes) probabilities: `share` for the sample's own label, the rest for its partner's."""
    own, other = (F.one_hot(labels, classes).to(share.dtype) for labels in (targets, partners))
    return torch.lerp(other, own, share[:, None])


def _band(number: Tensor, side: Tensor, length: int) -> Tensor:
    """Which of `length` rows lie within a band of that share of them about a random place."""
    middle, half = (number * length).long(), (side * length).long() // 2
    place = torch.arange(length)
    return (place >= (middle - half)[:, None]) & (place < (middle + half)[:, None])


def _beta(numbers: Tensor, strength: float) -> Tensor:
    """Numbers in [0, 1) → Beta(strength, strength), by its inverse distribution function."""
    if strength == 1:
        return numbers
    from scipy.stats import beta

    return torch.from_numpy(beta.ppf(numbers.numpy(), strength, strength)).to(numbers)


def _check(strength: float, name: str) -> None:
    if not strength > 0:
        raise RequestError(f"{name}: strength must be above 0, not {strength}")
