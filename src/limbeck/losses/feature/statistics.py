"""Losses on second-order statistics of maps: NST and FSP. Neither holds a B×C×C×HW tensor."""

from __future__ import annotations

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.maps import pool_to_smaller
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import agree, pair
from limbeck.losses.vectors import unit


@full_precision
def nst(student: Tensor, teacher: Tensor) -> Tensor:
    """Neuron selectivity: MMD² = mean k(t, t') + mean k(s, s') − 2 mean k(s, t), k(x, y) = (xᵀy)².

    s and t are the channels as L2-normalised vectors over the positions, the means are over all pairs. With
    X the (C, HW) matrix of channels, Σ k(x, y) = ‖X Yᵀ‖² = ⟨XᵀX, YᵀY⟩, so that MMD² is also the squared
    distance of the two XᵀX/C: whichever product is smaller is taken.

    Args:
        student: (B, C_s, H_s, W_s) feature map; the larger one is average-pooled to the smaller.
        teacher: (B, C_t, H_t, W_t) feature map.

    Returns:
        (B,) values ≥ 0, 0 where the channels are the same, in any order.

    Raises:
        RequestError: Not two maps, or of different batch sizes.

    Transfers: how alike the channels are over the places of a map, in whatever order they come.
    Use: convolutional networks whose last maps differ in width: no adapter is needed; no labels.
    Source: Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017,
        arXiv:1707.01219; recommended weight 50.
    """
    agree(student, teacher, (4,), 0)
    x_s, x_t = (unit(f.flatten(2)) for f in pool_to_smaller(student, teacher))
    if x_s.shape[2] <= max(x_s.shape[1], x_t.shape[1]):
        return (x_t.mT @ x_t / x_t.shape[1] - x_s.mT @ x_s / x_s.shape[1]).square().sum((1, 2))
    return _mean_kernel(x_t, x_t) + _mean_kernel(x_s, x_s) - 2 * _mean_kernel(x_s, x_t)


def _mean_kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT).square().mean((1, 2))


@full_precision
def fsp(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Flow of the solution procedure: mean of (G_s − G_t)², G = F_1 F_2ᵀ/HW of two layers of one model.

    Args:
        student: Maps (B, C_1, H, W) and (B, C_2, H, W) of two layers; the larger one is average-pooled.
        teacher: Two maps with as many channels, of any size.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: Not two maps each, or the channels differ.

    Transfers: how features change from one layer to a later one.
    Use: residual networks with the same channels at both ends, to start the student before it learns its task.
    Source: Yim et al.: A Gift from Knowledge Distillation, CVPR 2017; recommended weight 50 for each pair.
    """
    pairs = pair(student, "student"), pair(teacher, "teacher")
    shapes = [tuple(f.shape) for p in pairs for f in p]
    if any(len(s) != 4 or s[0] != shapes[0][0] for s in shapes) or any(
        shapes[i][1] != shapes[i + 2][1] for i in (0, 1)
    ):
        raise RequestError(
            f"student {shapes[0]}, {shapes[1]} and teacher {shapes[2]}, {shapes[3]} must be (B, C, H, W) "
            "maps with the same channels in each layer; give the term an adapter, or other taps"
        )
    g_s, g_t = (_flow(*p) for p in pairs)
    return mean_square(g_s, g_t)


def _flow(first: Tensor, second: Tensor) -> Tensor:
    """(B, C_1, C_2) products of channels, mean over the positions."""
    a, b = (f.flatten(2) for f in pool_to_smaller(first, second))
    return a @ b.mT / a.shape[2]
