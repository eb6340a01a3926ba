"""Weights that are numbers: a training that diverged leaves others."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from limbeck.errors import RequestError


def check_finite(model: nn.Module, path: str | Path) -> None:
    """Raise RequestError for a NaN among weights and buffers, or an infinite weight; a buffer may hold ±∞, as masks do.

    Args:
        model: With the weights of a file.
        path: The file, for the error.
    """
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor) or is_lazy(value) or not value.is_floating_point():
            continue
        wrong = ~torch.isfinite(value) if isinstance(value, nn.Parameter) else torch.isnan(value)
        if wrong.any():
            raise RequestError(
                f"the weights in {path} are not usable: {name} holds {int(wrong.sum()):,} values that are no finite "
                "numbers, as a training leaves them that diverged; train again with a lower learning rate"
            )
