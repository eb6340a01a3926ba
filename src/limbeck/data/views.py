"""Views: augmented versions of samples, each a pure function of (seed, view, index)."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from limbeck.data.augmentations import Augmentation
from limbeck.data.draws import draws
from limbeck.data.mixing import CutMix, Mixing, Mixup, mixed_labels
from limbeck.data.transforms import transform
from limbeck.errors import RequestError, unknown
from limbeck.seeds import derive
from limbeck.types import Inputs

AUGMENTATIONS = {
    "crop": "augmentations:Crop",
    "resized_crop": "resized:ResizedCrop",
    "flip": "augmentations:Flip",
    "cutout": "augmentations:Cutout",
    "jitter": "augmentations:Jitter",
    "autoaugment": "policies:AutoAugment",
    "randaugment": "policies:RandAugment",
    "mixup": "mixing:Mixup",
    "cutmix": "mixing:CutMix",
}
"""The augmentations that a recipe can name; each is imported when it is."""


@dataclass(frozen=True)
class Views:
    """Which augmented version of each sample an epoch hands out.

    The pixels of view v of sample i depend on nothing but (seed, v, i): not on order, batch, workers or processes.
    So what a teacher once said about them stays true.

    Args:
        steps: Augmentations, one after the other.
        mixing: Joins each sample with another one at last.
        count: Number of views; epoch e (from 0) hands out view e mod count. None makes a new view each epoch.
        seed: What the views are a function of.
        classes: Number of classes, for the labels that mixing makes.

    >>> import torch
    >>> from limbeck.data.augmentations import Flip
    >>> views = Views([Flip()])
    >>> image, index = torch.rand(2, 1, 4, 4), torch.tensor([3, 9])
    >>> torch.equal(views.images(image, index, 5)[1], views.images(image[1:], index[1:], 5)[0])
    True
    """

    steps: Sequence[Augmentation] = ()
    mixing: Mixing | None = None
    count: int | None = None
    seed: int = 0
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise RequestError(f"views must be 1 or more, not {self.count}")
        if self.mixing is not None and self.classes is None:
            raise RequestError("mixup and cutmix make labels of all classes: say how many, classes=…")

    def of_epoch(self, epoch: int) -> int:
        """The view that an epoch (from 0) hands out."""
        return epoch if self.count is None else epoch % self.count

    def images(self, images: Inputs, index: Tensor, view: int) -> Tensor:
        """A view of some samples' images, before any mixing.

        Args:
            images: (B, C, H, W) plain images, uint8 of 0–255 or float of 0–1.
            index: (B,) their positions in the data set, on the CPU.
            view: Which version.

        Raises:
            RequestError: Samples that are no images.
        """
        if not isinstance(images, Tensor):
            raise RequestError("augmentation takes one image a sample, and these samples have several named inputs")
        if self.steps and images.dim() != 4:
            raise RequestError(
                f"augmentation takes images of (channels, height, width), and these samples have the shape "
                f"{tuple(images.shape[1:])}; leave data.augment out"
            )
        for place, step in enumerate(self.steps):
            images = step(images, draws(self.seed, view, index, step.draws, f"step {place}"))
        return images

    def partners(self, index: Tensor, view: int, samples: int) -> Tensor:
        """(B,) positions of the samples with which these are mixed."""
        return (draws(self.seed, view, index, 1, "partner")[:, 0].double() * samples).long()

    def mix(
        self, images: Tensor, partners: Tensor, labels: tuple[Tensor, Tensor], index: Tensor, view: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed images (B, C, H, W) and class probabilities (B, classes).

        Args:
            images: The samples, float of 0–1.
            partners: Those they are mixed with.
            labels: The class indices (B,) of both.
            index: (B,) the samples' positions in the data set, on the CPU.
            view: Which version.
        """
        if self.mixing is None or self.classes is None:
            raise RequestError("these views mix nothing")
        numbers = draws(self.seed, view, index, self.mixing.draws, "mixing")
        mixed, share = self.mixing(images, partners, numbers)
        return mixed, mixed_labels(*labels, share, self.classes)

    def other(self) -> Views:
        """Views of the same kind of the same samples, that are other ones: those of another seed.

        Raises:
            RequestError: Samples are mixed, and the labels of both would differ.
        """
        if self.mixing is not None:
            raise RequestError("another view of each sample does not go with mixup or cutmix: its label would differ")
        return replace(self, seed=derive(self.seed, "other view"))

    @property
    def changing(self) -> bool:
        """Whether a view differs from the plain sample at all."""
        return bool(self.steps) or self.mixing is not None


def make_views(
    steps: Sequence[str | Mapping[str, Any]], *, count: int | None = None, seed: int = 0, classes: int | None = None
) -> Views:
    """Views from names, as a recipe gives them.

    Args:
        steps: Names of `AUGMENTATIONS`, such as "flip", of torchvision's transforms, such as
            "torchvision:RandomGrayscale", or of your own, "package.module:function"; or one name with its option or
            options, such as {"crop": 4} or {"jitter": {"brightness": 0.2}}.
        count: Number of views; None makes a new one each epoch.
        seed: What the views are a function of.
        classes: Number of classes; mixup and cutmix need it.

    Raises:
        RequestError: An unknown name, option or value.
    """
    made = [_augmentation(step) for step in steps]
    mixings = [one for one in made if isinstance(one, Mixup | CutMix)]
    if len(mixings) > 1 or (mixings and made[-1] is not mixings[0]):
        raise RequestError("mixup or cutmix stands once, as the last of the augmentations")
    return Views(
        tuple(one for one in made if one not in mixings), mixings[0] if mixings else None, count, seed, classes
    )


def _augmentation(step: str | Mapping[str, Any]) -> Any:
    if not isinstance(step, str) and len(step) != 1:
        raise RequestError(f"an augmentation is a name, or one name with its options, not {dict(step)}")
    name, options = (step, {}) if isinstance(step, str) else next(iter(step.items()))
    if ":" in name:
        return transform(name, options)
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, [*AUGMENTATIONS, "torchvision:NAME", "package.module:function"])
    module, _, kind = AUGMENTATIONS[name].partition(":")
    maker = getattr(importlib.import_module(f"limbeck.data.{module}"), kind)
    valid = list(inspect.signature(maker).parameters)
    if not isinstance(options, Mapping):
        options = dict(zip(valid[:1], [options], strict=True)) if valid else {str(options): options}
    for option in options:
        if option not in valid:
            raise unknown(f"option of augmentation {name}", option, valid)
    try:
        return TypeAdapter(maker).validate_python(dict(options))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise RequestError(f"augmentation {name}: {where} {fault['input']!r}: {fault['msg']}") from error
