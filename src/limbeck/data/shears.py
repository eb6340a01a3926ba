"""Shears with cubic interpolation, as the Python Imaging Library's affine transforms make them."""

from __future__ import annotations

import torch
from torch import Tensor


def shear(images: Tensor, slope: float, *, vertical: bool, fill: int) -> Tensor:
    """Move each row by slope · (y + ½) pixels, or each column by slope · (x + ½), with cubic interpolation.

    A pixel at x is read at x + slope · (y + ½), from the four of its row around that, with the cubic of a = −1; beyond
    the edge the last pixel counts, and what is read from outside of the image is `fill`.

    Args:
        images: (B, C, H, W) of uint8.
        slope: Pixels a row, or a column.
        vertical: Whether columns move.
        fill: 0–255.

    Returns:
        uint8 images of the same size.
    """
    x = images.transpose(2, 3) if vertical else images
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=torch.float64)[:, None]
    at = torch.arange(width, device=x.device, dtype=torch.float64) + slope * (rows + 0.5)
    first = at.floor()
    d = (at - first).float()
    v1, v2, v3, v4 = (_read(x, first.long() + step) for step in (-1, 0, 1, 2))
    cubic = v2 + d * ((v3 - v1) + d * ((2 * (v1 - v2) + v3 - v4) + d * (v2 - v1 + v4 - v3)))
    outside = (at < -0.5) | (at >= width - 0.5)
    moved = cubic.clamp(0, 255).masked_fill(outside, fill).to(torch.uint8)
    return moved.transpose(2, 3) if vertical else moved


def _read(x: Tensor, columns: Tensor) -> Tensor:
    """The pixels of (B, C, H, W) at a column for each row and place (H, W), the nearest where there is none."""
    columns = columns.clamp(0, x.shape[3] - 1)
    return x.float().gather(3, columns.expand(*x.shape[:2], -1, -1))
