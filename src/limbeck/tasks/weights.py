"""Weights of classes or labels in a task's loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.errors import as_request, shown


class Weights:
    """Weights (C,) beside the outputs that they are used with: moved to their device and dtype once.

    Args:
        given: The weights; None for none.
    """

    def __init__(self, given: Sequence[float] | Tensor | None) -> None:
        with as_request(lambda reason: f"weights are numbers, one a class, not {shown(given)}: {reason}"):
            self._values = None if given is None else torch.as_tensor(given, dtype=torch.float32)

    def beside(self, output: Tensor) -> Tensor | None:
        """The weights where the output lies, or None."""
        if self._values is not None and (self._values.device, self._values.dtype) != (output.device, output.dtype):
            self._values = self._values.to(output)
        return self._values
