"""What a foreign model ends in: logits, or, as scikit-learn's and many of Keras's do, probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError

SMALLEST = torch.finfo(torch.float32).eps
"""What a probability of 0 is taken for: trees and nearest neighbours give it, and its logarithm is −∞."""
TOLERANCE = 1e-2


class Ending:
    """From what a model ends in to logits; the first values that come are checked to be what was said.

    Args:
        probabilities: The model ends in probabilities; their logarithms, cut off at about −16, serve as logits.

    >>> Ending(probabilities=True)(torch.tensor([[0.5, 0.5, 0.0]]))
    tensor([[ -0.6931,  -0.6931, -15.9424]])
    """

    def __init__(self, *, probabilities: bool) -> None:
        self.probabilities = probabilities
        self._checked = False

    def __call__(self, values: Tensor) -> Tensor:
        """(B, C) logits.

        Raises:
            RequestError: Probabilities where logits were announced, of which a softmax would make something else; or
                the other way round.
        """
        if not self._checked and are_probabilities(values) != self.probabilities:
            if self.probabilities:
                raise RequestError("the model was said to end in probabilities, and does not: leave probabilities out")
            raise RequestError("the model ends in probabilities (rows ≥ 0 of sum 1), no logits: set probabilities=True")
        self._checked = True
        return values.clamp(min=SMALLEST).log() if self.probabilities else values


def are_probabilities(values: Tensor) -> bool:
    """Whether (B, C) holds two or more numbers from 0 to 1 a row, which sum to 1."""
    values = values.detach().float()
    if values.dim() != 2 or values.shape[1] < 2:
        return False
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < TOLERANCE).all())
