"""What a teacher's pixels are: what was read from its model is applied, and said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.models.pixels import Pixels, ReadsPixels, normalises, pixels_of
from limbeck.types import Inputs


@dataclass(frozen=True)
class Found:
    """What was found out about a teacher's pixels.

    Attributes:
        prepare: What brings them to what its model expects, after all else that prepares them; None for nothing.
        note: What should be said of it; None for nothing.
        pixels: What the model expects, where that was read from it.
    """

    prepare: nn.Module | None = None
    note: str | None = None
    pixels: Pixels | None = None


def find_pixels(model: nn.Module, inputs: nn.Module | None, given: Inputs, prepared: Inputs) -> Found:
    """Read from a teacher's model what pixels it expects, and compare it with what it gets.

    Args:
        model: The teacher's.
        inputs: What its user has prepare the inputs; what that does to the values of pixels holds.
        given: The first batch's inputs, before that.
        prepared: After it.
    """
    if not isinstance(given, Tensor) or not isinstance(prepared, Tensor) or given.dim() < 4:
        return Found()
    if not prepared.is_floating_point():
        return Found()
    unit = prepared if not normalises(inputs) else torch.zeros_like(prepared[:1])
    pixels = pixels_of(model, unit)
    if pixels is None:
        return _out_of_range(model, prepared) if not normalises(inputs) else Found()
    if normalises(inputs):
        return Found(note=_conflict(pixels, prepared))
    if not pixels.sure:
        return Found(
            note=f"gets pixels from 0 to 1, and {pixels.where} {pixels}; where its weights were trained so, give "
            f"ModuleTeacher(model, inputs=Preprocess({pixels.option}))",
            pixels=pixels,
        )
    prepare = pixels.preprocess().to(prepared.device)
    return Found(
        prepare, f"gets {pixels}, as {pixels.where}; inputs=Preprocess(mean=…, std=…) has it otherwise", pixels
    )


def students_pixels(model: nn.Module, inputs: nn.Module | None, given: Inputs, prepared: Inputs) -> str | None:
    """What should be said of the pixels that a student gets and those that it expects; None for nothing.

    Nothing is applied: whoever uses the student later gives it what it was trained on.
    """
    found = find_pixels(model, inputs, given, prepared)
    if found.pixels is None:
        return found.note
    if not found.pixels.sure:  # as of any network of timm that was not trained yet
        return None
    return (
        f"gets pixels from 0 to 1, and expects {found.pixels}: {found.pixels.where}; give the distiller "
        f"inputs=Preprocess({found.pixels.option})"
    )


def as_floats(model: nn.Module, inputs: Inputs) -> bool:
    """Whether images of bytes must be brought to floats for a model that would take them for floats unseen."""
    is_bytes = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.dim() >= 4
    return is_bytes and isinstance(model, ReadsPixels) and model.reads_floats


def _conflict(pixels: Pixels, prepared: Tensor) -> str | None:
    """A line where what the user has prepared is far from what the model expects."""
    low, high = (float(value) for value in torch.aminmax(prepared))
    if not pixels.sure or max(-low, high) > 16:  # the range is 0–255, or nearly so
        return None
    return f"gets pixels from {low:.3g} to {high:.3g}, as its inputs prepare them, and expects {pixels}: {pixels.where}"


def _out_of_range(model: nn.Module, images: Tensor) -> Found:
    """A line for images that somebody has normalised already, and a model that does it itself."""
    low, high = (float(value) for value in torch.aminmax(images))
    pixels = pixels_of(model, torch.zeros_like(images[:1])) if low < 0 and max(-low, high) < 16 else None
    if pixels is None or not pixels.sure:
        return Found()
    return Found(
        note=f"gets pixels from {low:.3g} to {high:.3g}, and expects {pixels}: {pixels.where}; they are left so"
    )
