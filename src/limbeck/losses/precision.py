"""Every loss computes in fp32 or better, whatever comes in and whatever autocast is on, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")

_HALF = frozenset((torch.float16, torch.bfloat16))


def full_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorate a loss: half-precision tensors are cast to fp32, and autocast is off inside.

    In bf16, KL gradients are off by 3–19 %; in fp16, softmax of large logits overflows.
    float64 stays float64, so that gradients can be checked, and fp32 beside it becomes float64.
    """

    @wraps(loss)
    def in_full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        if _is_wide(args) and not _autocasts(_device(args)):  # the usual case first: nothing to cast, nothing to stop
            return loss(*args, **kwargs)
        return _widely(loss, args, kwargs, _common(args))

    return sees_to_it(in_full_precision)


def own_precision(loss: Callable[P, R]) -> Callable[P, R]:
    """Mark a loss that sees to its precision itself: it gets tensors as they come, and autocast as it is.

    Every other loss of a term, and every other task loss, is called in fp32 (`call_loss`). It marks a function, the
    `forward` of a module, a module, or a class of losses.

    >>> from limbeck import Term
    >>> @own_precision
    ... def in_half(student, teacher):
    ...     return (student - teacher).square().mean()
    >>> Term(in_half)
    Term(in_half, weight=1.0, logits → logits)
    """
    if isinstance(loss, nn.Module | type):
        return sees_to_it(loss)

    @wraps(loss)  # the function itself may be torch's, and anybody's
    def as_it_comes(*args: P.args, **kwargs: P.kwargs) -> R:
        return loss(*args, **kwargs)

    return sees_to_it(as_it_comes)


def sees_to_it(loss: Callable[P, R]) -> Callable[P, R]:
    """Mark as `own_precision` does, in place: for limbeck's own functions, which nobody needs unmarked."""
    loss.own_precision = True  # type: ignore[attr-defined]
    return loss


def call_loss(loss: Callable[..., R], *tensors: Any, **options: Any) -> R:
    """`loss(*tensors, **options)` in fp32 or better, whoever wrote it.

    Autocast is off inside, and half-precision tensors are cast to fp32; float64 stays float64. Not so for a loss that
    is marked by `own_precision`, as those of limbeck are by `full_precision`, nor for a module whose own parameters
    are in half precision.
    """
    is_function = type(loss) is FunctionType
    if is_function and getattr(loss, "own_precision", False):  # the most usual ones first
        return loss(*tensors, **options)
    if _is_wide(tensors) and not (options and not _is_wide(options.values())) and not _autocasts(_device(tensors)):
        return loss(*tensors, **options)
    if keeps_precision(loss):
        return loss(*tensors, **options)
    dtype = _common(tensors)
    return _widely(loss, tensors, {name: _widen(value, dtype) for name, value in options.items()}, dtype)


def run_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` in the dtype of the layer's parameters, the result in the dtype of x.

    A student trained in pure bf16 has bf16 layers in its losses; the loss behind them stays in fp32.
    """
    dtype = next(layer.parameters()).dtype
    out: Tensor = layer(x.to(dtype))
    return out.to(x.dtype)


def _is_wide(values: Iterable[Any]) -> bool:
    """Whether the tensors among arguments, nested ones too, have one precision, fp32 or better."""
    found = _precisions(values)
    return len(found) < 2 and not found & _HALF


def _precisions(values: Iterable[Any]) -> set[torch.dtype]:
    return {x.dtype for x in _tensors(values) if x.is_floating_point()}


def _autocasts(kind: str) -> bool:
    try:
        return torch.is_autocast_enabled(kind)
    except RuntimeError:  # a device that knows no autocast, such as meta
        return False


def keeps_precision(loss: Any) -> bool:
    if isinstance(loss, partial):
        return keeps_precision(loss.func)
    if not isinstance(loss, nn.Module):
        return getattr(loss, "own_precision", False) is True
    marked = getattr(loss, "own_precision", False) or getattr(type(loss).forward, "own_precision", False)
    return marked is True or any(parameter.dtype in _HALF for parameter in loss.parameters())


def _widely(loss: Callable[..., R], args: Iterable[Any], options: Mapping[str, Any], dtype: torch.dtype) -> R:
    """The loss of its arguments cast up to a precision, without autocast."""
    device = _device(args)
    wide = [_widen(value, dtype) for value in args]
    if not _autocasts(device):
        return loss(*wide, **options)
    with torch.autocast(device, enabled=False):
        return loss(*wide, **options)


def _device(args: Iterable[Any]) -> str:
    """The device type of the first tensor among nested arguments, "cpu" where there is none."""
    first = next(_tensors(args), None)
    return "cpu" if first is None or first.is_cpu else first.device.type


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _common(values: Iterable[Any]) -> torch.dtype:
    """float64 where a tensor is in it, else fp32: of both together some of torch's losses have no gradient."""
    return torch.float64 if torch.float64 in _precisions(values) else torch.float32


def _widen(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
    if isinstance(value, tuple | list):
        wide = [_widen(v, dtype) for v in value]
        return cast(Any, type(value))(*wide) if hasattr(value, "_fields") else tuple(wide)
    return value
