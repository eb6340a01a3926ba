"""Tokens of images as the maps that they are, and the mean over positions."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from limbeck.notices import tell

Shape = tuple[int, ...]
BEFORE_GRID = (0, 1, 2)
"""So many tokens may stand before those of the grid: none, a class token, and one for distillation beside it."""


class Grid(NamedTuple):
    """How tokens lie: `before` others, then height · width of the picture."""

    before: int
    height: int
    width: int


class TokensToMap(nn.Module):
    """Tokens (B, L, C) as the map (B, C, H, W) of their grid, without those that stand before it."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        before, height, width = self.grid
        tokens = x[:, before:].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], height, width)

    def extra_repr(self) -> str:
        return f"{self.grid.height}×{self.grid.width} after {self.grid.before}"


class Mean(nn.Module):
    """The mean over positions, (B, C): of maps, or of tokens without the first `before`."""

    def __init__(self, before: int = 0) -> None:
        super().__init__()
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if x.dim() == 4 else x[:, self.before :].mean(dim=1)

    def extra_repr(self) -> str:
        return f"after {self.before}" if self.before else ""


def grid_of(length: int, size: tuple[int, ...] = ()) -> Grid | None:
    """The grid in which so many tokens lie: that of a map's size where it fits, else a square; None for neither."""
    for before in BEFORE_GRID:
        if len(size) == 2 and length - before == math.prod(size):
            return Grid(before, *size)
    for before in BEFORE_GRID:
        side = math.isqrt(max(length - before, 0))
        if side and side**2 == length - before:
            return Grid(before, side, side)
    return None


def as_map(tokens: Shape, size: Shape = ()) -> nn.Module | None:
    """What makes tokens of this shape a map, that of `size` where it fits; None where they lie in no grid."""
    grid = grid_of(tokens[1], size)
    if grid is None:
        return None
    _tell_left_out(tokens, grid)
    return TokensToMap(grid)


def mean_of(shape: Shape) -> nn.Module:
    """What averages maps or tokens of this shape over positions."""
    grid = grid_of(shape[1]) if len(shape) == 3 else None
    if grid is None or grid.before > 1:  # a sequence, such as words
        return Mean()
    _tell_left_out(shape, grid)
    return Mean(grid.before)


def _tell_left_out(tokens: Shape, grid: Grid) -> None:
    if grid.before:
        which = "the class token" if grid.before == 1 else f"the first {grid.before} tokens"
        tell(f"of tokens {tokens} {which} is left out; the others are a map of {grid.height}×{grid.width}")
