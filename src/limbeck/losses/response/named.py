"""Log-probabilities of some classes out of many, each with one matrix of gradients."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> Tensor:
        every = logits.log_softmax(-1)
        ctx.save_for_backward(every, classes)
        return every.gather(-1, classes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        every, classes = ctx.saved_tensors
        slope = every.exp().mul_(-grad.sum(-1, keepdim=True))
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


class _WithRest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> Tensor:
        others = logits.scatter(-1, classes, -math.inf)
        rest = others.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(others, rest, classes)
        return torch.cat([logits.gather(-1, classes), rest], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        others, rest, classes = ctx.saved_tensors
        # Where all others are masked, rest is −∞ as they are, and their gradients are 0.
        slope = (others - rest.clamp(min=torch.finfo(rest.dtype).min)).exp_().mul_(grad[..., -1:])
        return slope.scatter_(-1, classes, grad[..., :-1]), None
