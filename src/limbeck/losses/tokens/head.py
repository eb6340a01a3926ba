"""The last layer of a language model: from a token's hidden state to its logits over the vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from limbeck.errors import RequestError


class Head(NamedTuple):
    """logits = cap · tanh(z / cap), z = scale · (W h + b); without a cap they are z.

    Attributes:
        weight: W, (V, D).
        bias: b, (V,), or None.
        scale: What the product is multiplied by, as in Cohere's models, or one over what it is divided by, as in
            Granite's.
        cap: The soft cap of Gemma 2's models; None for none.

    >>> Head(torch.eye(2), cap=2.0)(torch.tensor([[0.0, 100.0]]))
    tensor([[0., 2.]])
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits (..., V), in fp32 or better, of hidden states (..., D)."""
        return self.finished(F.linear(hidden, self.weight, self.bias))

    def finished(self, product: Tensor) -> Tensor:
        """The logits of the products W h + b."""
        z = product if product.dtype == torch.float64 else product.float()
        if self.scale != 1:
            z = z * self.scale
        return z if self.cap is None else self.cap * torch.tanh(z / self.cap)

    def first(self, classes: int | None) -> Head:
        """The head of the first so many logits; None for all."""
        bias = None if self.bias is None else self.bias[:classes]
        return self._replace(weight=self.weight[:classes], bias=bias)

    def check(self, hidden: Tensor) -> None:
        """Raise RequestError unless it is a head for these hidden states."""
        if self.weight.dim() != 2 or hidden.dim() < 2 or hidden.shape[-1] != self.weight.shape[1]:
            raise RequestError(
                f"hidden states {tuple(hidden.shape)} and a head's weight {tuple(self.weight.shape)} do not fit: they "
                "are (..., D) and (V, D)"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise RequestError(f"a bias {tuple(self.bias.shape)} does not fit a weight {tuple(self.weight.shape)}")
        if self.cap is not None and not self.cap > 0:
            raise RequestError(f"cap must be above 0, not {self.cap}")


class Projected(NamedTuple):
    """A teacher's logits, not made yet: its hidden states (B, L, D) and its head."""

    hidden: Tensor
    head: Head
