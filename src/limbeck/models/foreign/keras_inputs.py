"""What goes into a Keras model: each input in the shape and the kind of numbers that the model was built for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.foreign.shapes import described, fits, remedy
from limbeck.models.foreign.whole_numbers import WholeNumbers
from limbeck.types import Inputs, flat


class KerasInputs:
    """Brings a batch to what a Keras model reads.

    Args:
        model: The Keras model.
        channels_last: It reads images (B, H, W, C).
        stated: Somebody has said so, and it holds for teacher outputs (B, C, L) too, and for images that are flattened.

    Attributes:
        dtypes: Of each input that reads whole numbers, by its name.
    """

    def __init__(self, model: Any, *, channels_last: bool, stated: bool) -> None:
        self.channels_last = channels_last
        self.stated = stated
        self._model = str(model.name)
        self._expected = _expected(model)
        self._whole = WholeNumbers()
        self.dtypes = {name: dtype for name, (_, dtype) in self._expected.items() if dtype is not None}

    def __call__(self, inputs: Inputs) -> Any:
        """The inputs as Keras takes them.

        Raises:
            RequestError: Shapes that the model does not take, or fractions in place of whole numbers.
        """
        if isinstance(inputs, Tensor):
            names = list(self._expected)
            return self._read(inputs, names[0] if len(names) == 1 else None)
        return {name: self._read(value, name) for name, value in flat(inputs).items()}

    def moves(self, dim: int) -> bool:
        """Whether tensors of so many dimensions have their channels moved."""
        return self.channels_last and dim >= (3 if self.stated else 4)

    def _read(self, given: Tensor, name: str | None) -> Tensor:
        x = given.movedim(1, -1) if self.moves(given.dim()) else given
        shape, dtype = self._expected.get(name or "", (None, None))
        if shape is not None:
            if len(shape) == 2 and x.dim() > 2 and (self.stated or given.shape[1] == 1):
                x = x.flatten(1)
            if not fits(x.shape, shape):
                raise RequestError(
                    f"the Keras model {self._model} reads {described(shape)}, and was given {tuple(given.shape)}"
                    f"{remedy(given.shape, shape, self.moves(given.dim()))}"
                )
        return x if dtype is None else self._whole(x, dtype, f"input {name} of the Keras model {self._model}")


def _expected(model: Any) -> dict[str, tuple[tuple[Any, ...], torch.dtype | None]]:
    """Shape and, where these are whole numbers, dtype of each input by its name; {} where the model does not say."""
    by_name = getattr(model, "input", None)  # a Sequential has none
    given = by_name.items() if isinstance(by_name, Mapping) else [(one.name, one) for one in _inputs(model)]
    return {str(name): (tuple(one.shape), _whole_dtype(one.dtype)) for name, one in given}


def _inputs(model: Any) -> Any:
    try:
        return model.inputs or ()
    except (AttributeError, ValueError):  # a model of one's own class
        return ()


def _whole_dtype(name: str) -> torch.dtype | None:
    dtype = getattr(torch, str(name), None)
    return dtype if isinstance(dtype, torch.dtype) and not dtype.is_floating_point else None
