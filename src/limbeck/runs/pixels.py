"""What pixels a recipe's models get: as the recipe says, else as they say themselves; what is not applied is said."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from limbeck.data import DataSet
from limbeck.models.pixels import Pixels, configured, pixels_of
from limbeck.notices import tell
from limbeck.recipes import schema
from limbeck.runs import components

M = TypeVar("M", bound=schema.Model)


def with_pixels(spec: M, network: nn.Module, data: DataSet) -> M:
    """A model with the mean and the standard deviation that are read from it, where the recipe has none.

    They are read from an ONNX graph, from Keras's layers, and from the configuration of pretrained weights.

    Args:
        spec: What the recipe says.
        network: The model, built.
        data: The data, whose images are 0 to 1.
    """
    try:
        images = components.example(spec.model_copy(update={"mean": None, "std": None}), data)
    except Exception:  # the checks say so, with the remedy
        return spec
    if not isinstance(images, Tensor) or images.dim() != 4:
        return spec
    pixels = pixels_of(network, images)
    if pixels is None or not pixels.sure:
        _tell_of_weights(spec, network, images)
        return spec
    if spec.mean is None and spec.std is None:
        tell(f"{spec.model} gets {pixels}, as {pixels.where}; mean and std in the recipe have it otherwise")
        return spec.model_copy(update={"mean": list(pixels.mean), "std": list(pixels.std)})
    if not _same(spec, pixels):
        tell(f"{spec.model} gets pixels by the recipe's mean and std, and not {pixels}, as {pixels.where}")
    return spec


def _tell_of_weights(spec: schema.Model, network: nn.Module, images: Tensor) -> None:
    """A line for weights from a file, of whose training the configuration may say the truth or not."""
    known = configured(network, images.shape[1], sure=False)
    kept = spec.weights and not getattr(spec, "epochs", None)  # and not trained from there with other pixels
    if known is not None and kept and spec.mean is None and spec.std is None:
        tell(
            f"{spec.model} gets pixels from 0 to 1, and {known.where} {known}, which is not applied to weights from a "
            f"file; where they were trained so, give {known.option}"
        )


def _same(spec: schema.Model, pixels: Pixels) -> bool:
    count = len(spec.mean or spec.std or ())
    mean, std = spec.mean or [0.0] * count, spec.std or [1.0] * count
    given, read = [*mean, *std], [*pixels.mean, *pixels.std]
    return len(given) == len(read) and all(abs(one - other) < 1e-3 for one, other in zip(given, read, strict=True))
