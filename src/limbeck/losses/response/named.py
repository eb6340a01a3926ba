"""Log-probabilities of some classes out of many."""

from __future__ import annotations

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
