"""Sums of losses over tokens, through a head, with gradients that are formed in the forward pass.

Of the logits (N, V) only a few rows are there at once. Their gradient is taken at once too, and carried on to the
hidden states and the head, so that nothing of them is kept for the backward pass, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from limbeck.errors import RequestError
from limbeck.losses.looks import can_look
from limbeck.losses.response.some_classes import log_probs_of
from limbeck.losses.tokens.head import Head

NUMBERS = 2**22
"""Logits that are there at once: 16 MiB in fp32, and some times that with what losses make of them."""

Part = Callable[[Tensor, slice], Tensor]
"""(logits (n, V) of some tokens, which rows these are) → (n,) values."""
Look = Callable[[Tensor, slice], None]
"""Sees the same."""


@dataclass(frozen=True)
class OfClasses:
    """A part that reads the log-probabilities of some classes alone; all such parts share one softmax.

    Attributes:
        classes: Of some rows, (n, K) classes.
        values: (n,) values of their (n, K) log-probabilities, and of which rows these are.
    """

    classes: Callable[[slice], Tensor]
    values: Callable[[Tensor, slice], Tensor]

    def __call__(self, logits: Tensor, at: slice) -> Tensor:
        return self.values(log_probs_of(logits, self.classes(at)), at)


def through_head(
    parts: Sequence[Part],
    weights: Sequence[float],
    hidden: Tensor,
    head: Head,
    chunk: int | None = None,
    look: Look = lambda logits, at: None,
) -> tuple[Tensor, Tensor]:
    """Σ weight · Σ over the tokens, of some losses that share the logits.

    Args:
        parts: The losses.
        weights: Their factors.
        hidden: (N, D).
        head: What makes logits of them.
        chunk: Tokens at a time; None for as many as make `NUMBERS` logits.
        look: Shown each piece's logits, without gradients, while they are there.

    Returns:
        The sum, and (parts,) each loss's own sum without its weight and without a gradient.

    Raises:
        RequestError: Head and hidden states do not fit.
    """
    head.check(hidden)
    if chunk is not None and chunk < 1:
        raise RequestError(f"chunk is a number of tokens, 1 or more, not {chunk}")
    rows = chunk or max(1, NUMBERS // len(head.weight))
    total, sums = _Through.apply(
        _Work(parts, weights, rows, look), head.scale, head.cap, hidden, head.weight, head.bias
    )
    return total, sums


class _Work(NamedTuple):
    """What is done with the logits."""

    parts: Sequence[Part]
    weights: Sequence[float]
    rows: int
    look: Look


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        work: _Work,
        scale: float,
        cap: float | None,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        with torch.autocast(device, enabled=False):
            offset = None if bias is None else bias.detach().to(dtype)
            plain = Head(weight.detach().to(dtype), offset, scale, cap)
            wanted = ctx.needs_input_grad[-3:]
            like = (hidden, weight, weight[:, 0])
            gradients = [_sums_like(x) if one else None for x, one in zip(like, wanted, strict=True)]
            sums = hidden.new_zeros(len(work.parts), dtype=_wide(dtype))
            for at in _pieces(len(hidden), work.rows):
                sums += _piece(work, hidden[at].to(dtype), plain, at, gradients)
        found = [None if g is None else g.to(x.dtype) for g, x in zip(gradients, like, strict=True)]
        ctx.save_for_backward(*found)
        ctx.mark_non_differentiable(sums)
        return (sums * sums.new_tensor(work.weights)).sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_sums: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.saved_tensors
        if not (can_look(grad) and grad.item() == 1):  # else a head's gradient would be there twice
            found = [None if one is None else one * grad.to(one.dtype) for one in found]
        return (*([None] * 3), *found)


def _piece(
    work: _Work,
    hidden: Tensor,
    head: Head,
    at: slice,
    gradients: Sequence[Tensor | None],
) -> Tensor:
    """The losses' sums over some tokens, whose gradients are added to those that are there."""
    of_hidden, of_weight, of_bias = gradients
    product = F.linear(hidden, head.weight, head.bias)
    differs = any(one is not None for one in gradients)
    with torch.set_grad_enabled(differs):
        logits = head.finished(product.requires_grad_(differs))
        values = [value.sum() for value in _each(work.parts, logits, at)]
        total = sum((value * weight for value, weight in zip(values, work.weights, strict=True)), logits.new_zeros(()))
    work.look(logits.detach(), at)
    if total.requires_grad:
        (slope,) = torch.autograd.grad(total, product)
        del logits, product
        if of_hidden is not None:
            of_hidden[at] = slope @ head.weight
        if of_weight is not None:
            _add_product(of_weight, slope, hidden)
        if of_bias is not None:
            of_bias += slope.sum(0)
    return torch.stack([value.detach() for value in values])


def _each(parts: Sequence[Part], logits: Tensor, at: slice) -> list[Tensor]:
    """(n,) values of each part."""
    classes = [part.classes(at) for part in parts if isinstance(part, OfClasses)]
    found: Iterator[Tensor] = iter(())
    if classes:
        log_probs = log_probs_of(logits, torch.cat(classes, -1))
        found = iter(log_probs.split_with_sizes([one.shape[-1] for one in classes], -1))
    return [part.values(next(found), at) if isinstance(part, OfClasses) else part(logits, at) for part in parts]


def _add_product(total: Tensor, slope: Tensor, hidden: Tensor) -> None:
    """total += slopeᵀ · hidden."""
    if total.dtype == slope.dtype:
        total.addmm_(slope.T, hidden)
    else:
        total += slope.T @ hidden


def _sums_like(x: Tensor) -> Tensor:
    return torch.zeros_like(x, dtype=_wide(x.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


def _pieces(tokens: int, rows: int) -> Iterator[slice]:
    for start in range(0, tokens, rows):
        yield slice(start, min(start + rows, tokens))
