"""Features as Gaussians, compared by the Wasserstein distance: WKD-F."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.shapes import agree


@full_precision
def wkd_f(student: Tensor, teacher: Tensor, *, mean_weight: float = 4.0, grid: int = 1) -> Tensor:
    """Wasserstein distance of Gaussians: γ ‖μ_s − μ_t‖² + ‖σ_s − σ_t‖², summed over the channels.

    μ and σ² are the mean and the unbiased variance of each channel over the positions of a map, σ² with 1e-5 added:
    with γ = 1 this is the squared distance of Gaussians with diagonal covariances. With a grid, of each of its cells,
    and averaged over them. The maps' sizes may differ.

    Args:
        student: (B, C, H_s, W_s) feature map.
        teacher: (B, C, H_t, W_t) feature map.
        mean_weight: γ.
        grid: The maps are cut into grid × grid cells, of two positions or more each.

    Returns:
        (B,) values ≥ 0, 0 where means and deviations agree.

    Raises:
        RequestError: Not two maps of one batch and as many channels, or too small ones for the grid.

    Transfers: how a map's channels are distributed, not where they are active.
    Use: convolutional networks, on their last maps, as many channels on both sides or an adapter; no labels.
    Source: Lv, Yang, Li: Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation,
        NeurIPS 2024, arXiv:2412.08139; recommended weight 6e-3 on CIFAR-100.
    """
    agree(student, teacher, (4,), 0, 1)
    if grid < 1:
        raise RequestError(f"a grid has 1 cell a side at least, not {grid}")
    cells = zip(_cells(student, grid), _cells(teacher, grid), strict=True)
    return torch.stack([_distance(s, t, mean_weight) for s, t in cells]).mean(0)


def _cells(feature: Tensor, grid: int) -> list[Tensor]:
    """(B, C, n) values of each cell; cells that do not divide a map evenly overlap, as in adaptive pooling."""
    rows, columns = (
        [slice(size * i // grid, -(-size * (i + 1) // grid)) for i in range(grid)] for size in feature.shape[2:]
    )
    cells = [feature[:, :, row, column].flatten(2) for row in rows for column in columns]
    if min(cell.shape[2] for cell in cells) < 2:
        raise RequestError(
            f"a cell of a map {tuple(feature.shape)} on a grid of {grid}×{grid} has fewer than two positions; "
            "take a smaller grid, or an earlier map"
        )
    return cells


def _distance(student: Tensor, teacher: Tensor, mean_weight: float) -> Tensor:
    (mean_s, deviation_s), (mean_t, deviation_t) = ((x.mean(2), (x.var(2) + 1e-5).sqrt()) for x in (student, teacher))
    return mean_weight * (mean_s - mean_t).square().sum(1) + (deviation_s - deviation_t).square().sum(1)
