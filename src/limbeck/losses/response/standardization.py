"""Logit standardisation: what to do to logits before a loss compares them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision


@full_precision
def standardize(logits: Tensor) -> Tensor:
    """z = (l − mean(l)) / (std(l) + 1e-7) over the classes: the student need not copy the scale.

    std is the unbiased one. A row of equal logits becomes zeros and passes no gradient (by the
    formula alone it would be 1e7).

    Args:
        logits: (..., C) logits, classes last, C ≥ 2.

    Returns:
        (..., C) standardised logits, to be divided by a temperature; recommended T = 2, weight 9 with T².

    Raises:
        RequestError: Fewer than two classes.

    Source: Sun et al.: Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv:2403.01427.

    >>> import torch
    >>> standardize(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=4)
    tensor([[-1.,  0.,  1.]])
    """
    off, std = centred(logits)
    return off / (std + 1e-7)


def centred(logits: Tensor) -> tuple[Tensor, Tensor]:
    """l − mean(l) over the classes, and the unbiased deviation (..., 1), infinite where a row's logits are equal.

    Raises:
        RequestError: Fewer than two classes.
    """
    if logits.dim() < 1 or logits.shape[-1] < 2:
        raise RequestError(f"logits are standardised over two classes or more, and they are {tuple(logits.shape)}")
    mean = logits.mean(-1, keepdim=True)
    off = logits - mean
    std: Tensor = torch.linalg.vector_norm(off, dim=-1, keepdim=True) / math.sqrt(logits.shape[-1] - 1)
    flat = std <= 4 * torch.finfo(logits.dtype).eps * mean.detach().abs()
    return off, std.masked_fill(flat, math.inf)
