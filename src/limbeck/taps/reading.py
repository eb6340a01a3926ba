"""Where inputs and models meet: inputs of a dtype that a model cannot read are brought to one that it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from limbeck.types import Inputs, each, tensors_of

T = TypeVar("T")

FLOATS, NUMBERS, POSITIONS = "floats", "numbers", "positions"


@dataclass(frozen=True)
class Conversion:
    """From a batch's inputs to those that one model reads; tensors that fit already stay as they are.

    `before` stands in front of what prepares the inputs (`Preprocess`), `after` between that and the model.

    Args:
        kind: "floats" brings floating-point inputs to the model's dtype; "numbers" whole numbers too, and uint8
            pixels to the scale 0–1, as limbeck's loaders do; "positions" brings small whole numbers to int64, as
            embeddings read them.
        dtype: The model's.
    """

    kind: str
    dtype: torch.dtype

    def before(self, inputs: Inputs) -> Inputs:
        """The inputs as their preparation takes them."""
        return inputs if self.kind == FLOATS else each(inputs, self._whole)

    def after(self, inputs: Inputs) -> Inputs:
        """The prepared inputs as the model takes them."""
        return each(inputs, lambda x: x.to(self.dtype) if x.is_floating_point() else x)

    def _whole(self, x: Tensor) -> Tensor:
        if x.is_floating_point() or x.is_complex():
            return x
        if self.kind == POSITIONS:
            return x.long()
        return x.float() / 255 if x.dtype == torch.uint8 else x.float()

    def note(self, inputs: Inputs) -> str | None:
        """What somebody should know who did not convert the inputs himself."""
        if self.kind != NUMBERS or all(x.dtype != torch.uint8 for x in tensors_of(inputs)):
            return None
        return "reads inputs of uint8 as pixels, divided by 255; give floats to have it otherwise"


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of a model's first floating-point weight or buffer; fp32 for a model without any."""
    tensors = (*model.parameters(), *model.buffers())
    return next((x.dtype for x in tensors if x.is_floating_point()), torch.float32)


def readable(run: Callable[[Conversion | None], T], inputs: Inputs, dtype: torch.dtype) -> tuple[T, Conversion | None]:
    """What a model gives for some inputs, and the conversion by which it can read them; None where it needs none.

    Args:
        run: Runs the model on the inputs, converted.
        inputs: The inputs, as they come.
        dtype: The model's.

    Raises:
        Exception: What the model raises, where no conversion helps: for floats in its own dtype, or as they come.
    """
    try:
        return run(None), None
    except Exception as error:  # it may be anybody's model
        reason = error
        for conversion in _possible(inputs, dtype):
            try:
                return run(conversion), conversion
            except Exception as another:
                reason = another if conversion.kind == FLOATS else reason
        raise reason from None


def _possible(inputs: Inputs, dtype: torch.dtype) -> list[Conversion]:
    tensors = tensors_of(inputs)
    floats = any(x.is_floating_point() and x.dtype != dtype for x in tensors)
    whole = any(not x.is_floating_point() and not x.is_complex() for x in tensors)
    small = any(not x.is_floating_point() and x.dtype != torch.int64 for x in tensors)
    kinds = [*([FLOATS] if floats else []), *([NUMBERS] if whole else [])]
    return [Conversion(kind, dtype) for kind in (*kinds, *([POSITIONS] if small and whole else []))]
