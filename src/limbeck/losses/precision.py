"""Every loss computes in fp32 or better, whatever comes in and whatever autocast is on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.float16, torch.bfloat16)


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss: half-precision tensors are cast to fp32, and autocast is off inside.

    In bf16, KL gradients are off by 3–19 %; in fp16, softmax of large logits overflows.
    float64 stays float64, so that gradients can be checked.
    """

    @wraps(loss)
    def in_full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        device = _device(args) or "cpu"
        wide = map(_widen, args)
        if not torch.is_autocast_enabled(device):
            return loss(*wide, **kwargs)
        with torch.autocast(device, enabled=False):
            return loss(*wide, **kwargs)

    return in_full_precision


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` in the dtype of the layer's parameters, the result in the dtype of x.

    A student trained in pure bf16 has bf16 layers in its losses; the loss behind them stays in fp32.
    """
    dtype = next(layer.parameters()).dtype
    out: Tensor = layer(x.to(dtype))
    return out.to(x.dtype)


def _device(args: Iterable[Any]) -> str | None:
    """The device type of the first tensor among nested arguments."""
    for a in args:
        if isinstance(a, Tensor):
            return a.device.type
        found = _device(a) if isinstance(a, tuple | list) else None
        if found is not None:
            return found
    return None


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, tuple | list):
        return tuple(_widen(v) for v in value)
    return value
