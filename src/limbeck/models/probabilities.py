"""What a foreign model ends in: logits, or, as scikit-learn's and many of Keras's do, probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError

SMALLEST = torch.finfo(torch.float32).eps
"""What a probability of 0 is taken for: trees and nearest neighbours give it, and its logarithm is −∞."""
TOLERANCE = 1e-2
"""How far from 1 the sum of exact probabilities may lie, and how far below 0 or above 1 one of them."""
STEP = 1e-2
"""The coarsest step to which probabilities are rounded: two decimals; 8 bits are finer."""


class Ending:
    """From what a model ends in to logits; the first values that come are checked to be what was said.

    Rows of probabilities that were rounded, or hold the likeliest classes alone, are brought to the sum 1.

    Args:
        probabilities: The model ends in probabilities; their logarithms, cut off at about −16, serve as logits.

    Attributes:
        notes: What should be known of it, a line each; empty before its first call.

    >>> Ending(probabilities=True)(torch.tensor([[0.5, 0.5, 0.0]]))
    tensor([[ -0.6931,  -0.6931, -15.9424]])
    """

    def __init__(self, *, probabilities: bool) -> None:
        self.probabilities = probabilities
        self.notes: list[str] = []
        self._checked = False

    def __call__(self, values: Tensor) -> Tensor:
        """(B, C) logits.

        Raises:
            RequestError: Probabilities where logits were announced, of which a softmax would make something else; or
                the other way round.
        """
        if not self._checked and not torch.compiler.is_compiling():  # an exporter's tensors hold no values
            self._check(values)
            self._checked = True
        if not self.probabilities:
            return values
        values = values.clamp(min=0)
        sums = values.sum(-1, keepdim=True)
        return (values / torch.where(sums > 0, sums, 1)).clamp(min=SMALLEST).log()

    def _check(self, values: Tensor) -> None:
        if not self.probabilities:
            if are_probabilities(values):
                raise RequestError(
                    "the model ends in probabilities (rows ≥ 0 of sum 1), no logits: set probabilities=True"
                )
            if unit := near_probabilities(values):
                raise RequestError(
                    f"the model ends in what look like rounded probabilities ({unit}), of which a softmax makes other "
                    "ones: set probabilities=True if they are, or give what stands before them"
                )
            return
        sums = values.detach().float().sum(-1)
        if not can_be_probabilities(values):
            low, high = _range(values)
            raise RequestError(
                f"the model was said to end in probabilities, and gives numbers from {low:.3g} to {high:.3g} in rows "
                f"of sum {float(sums.min()):.3g} to {float(sums.max()):.3g}; leave probabilities out if they are logits"
            )
        if not are_probabilities(values):
            self.notes = [
                f"gives probabilities in rows of sum {float(sums.min()):.3g} to {float(sums.max()):.3g}; each row is "
                "brought to the sum 1"
            ]


def are_probabilities(values: Tensor) -> bool:
    """Whether (B, C) holds two or more numbers from 0 to 1 a row, which sum to 1."""
    values = values.detach().float()
    if values.dim() != 2 or values.shape[1] < 2:
        return False
    positive = bool((values >= -SMALLEST).all())
    return positive and bool(((values.sum(1) - 1).abs() < TOLERANCE).all())


def near_probabilities(values: Tensor) -> str:
    """What of (B, C) looks like probabilities that were rounded, or like percentages, in words; "" for none."""
    values = values.detach().float()
    if values.dim() != 2 or values.shape[1] < 2 or not len(values):
        return ""
    low, high = _range(values)
    for whole, most, unit in ((1, 0.5, "sum 1"), (100, 0.05, "sum 100, as percentages have")):
        within = (values.sum(1) / whole - 1).abs() <= min(_slack(values), most)
        if low >= -TOLERANCE * whole and high <= (1 + TOLERANCE) * whole and bool(within.all()):
            return f"rows ≥ 0 of about {unit}"
    return ""


def can_be_probabilities(values: Tensor) -> bool:
    """Whether (B, C) may be probabilities: rounded ones, percentages, or those of the likeliest classes alone."""
    values = values.detach().float()
    if values.dim() != 2 or values.shape[1] < 2 or not bool(torch.isfinite(values).all()):
        return False
    low, high = _range(values)
    fits = low >= -TOLERANCE and high <= 1 + TOLERANCE and bool((values.sum(1) <= 1 + _slack(values)).all())
    return fits or near_probabilities(values) != ""


def _slack(values: Tensor) -> float:
    """How far from 1 the sum of so many rounded probabilities may lie."""
    return TOLERANCE + STEP / 2 * values.shape[1]


def _range(values: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(values.detach().float())
    return float(low), float(high)
