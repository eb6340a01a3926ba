"""What goes into an ONNX graph: each input by its name, in its shape and its dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.foreign.shapes import described, fits, remedy
from limbeck.models.foreign.whole_numbers import WholeNumbers
from limbeck.types import Inputs, flat

DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int16)": torch.int16,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}


@dataclass(frozen=True)
class Feed:
    """Brings a batch to what a graph reads.

    Attributes:
        path: The file, for errors.
        channels_last: The graph reads (B, ..., C), and batches are (B, C, ...).
        whole: Inputs that are floats by their type, and cut down to whole numbers by the graph itself.
        fixed: Inputs that are one number whatever the batch, and are given elsewhere.
    """

    path: Path
    channels_last: bool
    whole: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    _whole: WholeNumbers = field(default_factory=WholeNumbers)

    def __call__(self, expected: Sequence[Any], inputs: Inputs) -> list[tuple[Any, Tensor]]:
        """Each input of the graph, as onnxruntime describes it, with its tensor.

        Raises:
            RequestError: Inputs of other names, shapes or kinds than the graph's.
        """
        names = [one.name for one in expected if one.name not in self.fixed]
        numbers = [one.name for one in expected if one.name in names and _is_number(one) and len(names) > 1]
        if numbers and not set(numbers) <= (set() if isinstance(inputs, Tensor) else set(inputs)):
            raise RequestError(
                f"input {numbers[0]} of {self.path} is one number and no value a sample: give it once, as "
                f"fixed={{{numbers[0]!r}: 1.0}} with the number that it has when the model is used"
            )
        if isinstance(inputs, Tensor) and len(names) > 1:
            raise RequestError(f"{self.path} reads {len(names)} inputs; give a mapping of {', '.join(names)}")
        given = {names[0]: inputs} if isinstance(inputs, Tensor) else flat(inputs)
        if given.keys() != set(names):
            raise RequestError(f"{self.path} reads {', '.join(names)}, and was given {', '.join(given)}")
        return [(one, self._typed(self._shaped(given[one.name], one), one)) for one in expected if one.name in given]

    def _shaped(self, x: Tensor, expected: Any) -> Tensor:
        given = x
        if self.channels_last and x.dim() >= 3:
            x = x.movedim(1, -1)
        if len(expected.shape) == 2 and x.dim() > 2:
            x = x.flatten(1)
        if not fits(x.shape, expected.shape):
            raise RequestError(
                f"input {expected.name} of {self.path} has the shape {described(expected.shape)}, and was given "
                f"{tuple(given.shape)}{remedy(given.shape, expected.shape, self.channels_last)}"
            )
        return x

    def _typed(self, x: Tensor, expected: Any) -> Tensor:
        if expected.type not in DTYPES:
            raise RequestError(f"input {expected.name} of {self.path} is a {expected.type}, which has no tensor")
        dtype = DTYPES[expected.type]
        if not dtype.is_floating_point or expected.name in self.whole:
            return self._whole(x, dtype, f"input {expected.name} of {self.path}")
        if x.is_floating_point() and x.dtype.itemsize < min(dtype.itemsize, 4):
            raise RequestError(f"{self.path} computes in its own dtype, and was given {x.dtype}: leave dtype out")
        return x.to(dtype)


def _is_number(expected: Any) -> bool:
    return list(expected.shape) in ([], [1])
