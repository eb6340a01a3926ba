"""A batch's shape against that which a foreign model takes, and what would bring them together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def fits(shape: Sequence[int], needed: Sequence[Any]) -> bool:
    """Whether a batch has a shape that a model takes; what is no int may be any size, and so the number of samples."""
    same = (one == other for one, other in zip(shape[1:], needed[1:], strict=False) if type(other) is int)
    return len(shape) == len(needed) and all(same)


def channels_moved(shape: Sequence[int]) -> tuple[int, ...]:
    """(B, ..., C) of (B, C, ...)."""
    return (shape[0], *shape[2:], shape[1])


def described(needed: Sequence[Any]) -> str:
    """A shape that a model takes, in words."""
    return f"({', '.join(['B', *('any' if size is None else str(size) for size in needed[1:])])})"


def remedy(shape: Sequence[int], needed: Sequence[Any], channels_last: bool) -> str:
    """What would help, as the end of an error; "" where nothing of limbeck's would.

    Args:
        shape: The batch's, (B, C, ...).
        needed: What the model takes.
        channels_last: Whether the channels are moved to the end already.
    """
    moved = channels_moved(shape) if len(shape) > 2 else tuple(shape)
    if channels_last and fits(shape, needed):
        return "; channels_last=False leaves the channels where they are"
    if not channels_last and len(shape) > 2 and fits(moved, needed):
        return "; channels_last=True moves the channels"
    if len(needed) == 2 and type(needed[1]) is int and len(shape) > 2:
        return _flat(math.prod(shape[1:]), needed[1])
    if len(needed) != 4 or len(shape) != 4:
        return ""
    last = channels_last or (needed[3] == shape[1] != needed[1] and type(needed[1]) is int)
    channels, *size = (needed[3], *needed[1:3]) if last else needed[1:]
    if type(channels) is int and channels != shape[1]:
        return f"; it reads images of {channels} channel(s), and these have {shape[1]}"
    if not all(type(one) is int for one in size):
        return ""
    order = "channels_last=True and " if last and not channels_last else ""
    wanted = str(size[0]) if size[0] == size[1] else str(tuple(size))
    return f"; {order}size: {wanted} (in Python inputs=Preprocess(size={wanted})) brings images to it"


def _flat(values: int, needed: int) -> str:
    if values != needed:
        return f"; it reads vectors of {needed} numbers, and each sample has {values}"
    return (
        "; it reads vectors, and the order of the numbers matters: channels_last=True flattens images as (H, W, C), "
        "channels_last=False as (C, H, W)"
    )
