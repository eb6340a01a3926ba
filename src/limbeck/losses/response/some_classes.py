"""Log-probabilities of some classes out of many, each with one matrix of gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def log_probs_of(logits: Tensor, classes: Tensor) -> Tensor:
    """log softmax(logits) at some classes, with one matrix of gradients for all of them.

    Args:
        logits: (..., C).
        classes: (..., K) indices, each in [0, C); one may stand there several times.

    Returns:
        (..., K).

    >>> log_probs_of(torch.zeros(1, 4), torch.tensor([[2, 2]])).exp()
    tensor([[0.2500, 0.2500]])
    """
    found: Tensor = _LogProbs.apply(logits, classes)
    return found


class _OfLogits(torch.autograd.Function):
    """A function of logits and classes; its gradient is one of them too, and has a gradient itself."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)


class _LogProbs(_OfLogits):
    @staticmethod
    def forward(logits: Tensor, classes: Tensor) -> Tensor:
        return logits.log_softmax(-1).gather(-1, classes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, classes = ctx.saved_tensors
        slope = logits.softmax(-1) * -grad.sum(-1, keepdim=True)
        return slope.scatter_add_(-1, classes, grad), None


def with_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits of some classes and, last, one that stands for all others: their log Σ exp.

    Args:
        logits: (..., C).
        classes: (..., K) indices, each once in a row, K < C.

    Returns:
        (..., K + 1), with the softmax of all logits at these classes and the sum of the others'.

    >>> with_rest(torch.zeros(1, 5), torch.tensor([[1]])).softmax(-1)
    tensor([[0.2000, 0.8000]])
    """
    found: Tensor = _WithRest.apply(logits, classes)
    return found


class _WithRest(_OfLogits):
    @staticmethod
    def forward(logits: Tensor, classes: Tensor) -> Tensor:
        others = logits.scatter(-1, classes, -math.inf)
        return torch.cat([logits.gather(-1, classes), others.logsumexp(-1, keepdim=True)], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, classes = ctx.saved_tensors
        # Finite, so that there is a softmax where all others are masked, too.
        others = logits.scatter(-1, classes, torch.finfo(logits.dtype).min)
        slope = others.softmax(-1) * grad[..., -1:]
        return slope.scatter_(-1, classes, grad[..., :-1]), None
