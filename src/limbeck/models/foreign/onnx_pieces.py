"""Batches of an ONNX graph cut into pieces, and what comes back of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def refuse_other_rows(logits: Any, size: int) -> None:
    """Raise ValueError for logits that are not one row a sample."""
    if isinstance(logits, np.ndarray) and logits.ndim and len(logits) != size:
        raise ValueError(f"it gives logits of shape {logits.shape} for {size} samples")


def as_tensor(value: Any, device: torch.device) -> Any:
    """An fp32 tensor of real numbers, another tensor of other ones; names of classes stay as they are."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    tensor = torch.from_numpy(value).to(device)
    return tensor.float() if tensor.is_floating_point() else tensor


def pieces(arrays: Mapping[str, Any], size: int, length: int) -> list[dict[str, Any]]:
    """The arrays cut into batches of exactly `length` samples; the last one is filled up with its last sample."""
    found = []
    for start in range(0, size, length):
        piece = {name: array[start : start + length] for name, array in arrays.items()}
        short = length - min(length, size - start)
        if short:
            piece = {name: np.concatenate([part, part[-1:].repeat(short, 0)]) for name, part in piece.items()}
        found.append(piece)
    return found
