"""Losses on how samples, or channels, lie to each other (relation knowledge).

Features f are (B, ...); but for `channel_correlation` teacher and student need the same batch only, and a
batch of one has no relations: the loss is 0.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import agree, several_samples
from limbeck.losses.vectors import unit


@full_precision
def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity preserving: ‖Ĝ_s − Ĝ_t‖²_F / B², G = F Fᵀ of the flattened features, Ĝ its rows at length 1.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features, of any other shape.

    Returns:
        A scalar ≥ 0.

    Raises:
        RequestError: The batch sizes differ.

    Transfers: which samples of the batch excite similar activations.
    Use: layers of any two shapes: no adapter is needed; batches of many samples; no labels.
    Source: Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv:1907.09682;
        recommended weight 3000.
    """
    g_s, g_t = (unit(f @ f.T) for f in _rows(student, teacher))
    return F.mse_loss(g_s, g_t)


@full_precision
def rkd(student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Relational KD: 25 · smooth-L1 of distances ‖f_i − f_j‖ over their mean + 50 · smooth-L1 of angles.

    The mean distance is over pairs apart, the losses are means over all B² pairs and B³ triples; an angle is
    cos ∠ f_j f_i f_k, 0 where two of the points coincide. Both come from one Gram matrix.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features, of any other shape.
        distance_weight: Of the distances.
        angle_weight: Of the angles; 0 saves the (B, B, B) tensor.

    Returns:
        A scalar ≥ 0, 0 where one is the other moved, turned or scaled.

    Raises:
        RequestError: The batch sizes differ.

    Transfers: distances and angles between the samples of the batch.
    Use: embeddings, as in metric learning and retrieval, of any two widths; also few-shot classification; no labels.
    Source: Park et al.: Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068; recommended weight 1.
    """
    (gram_s, d_s), (gram_t, d_t) = (_gram_and_distances(f) for f in _rows(student, teacher))
    loss = distance_weight * F.smooth_l1_loss(_over_mean(d_s), _over_mean(d_t))
    if angle_weight == 0:
        return loss
    return loss + angle_weight * F.smooth_l1_loss(_angles(gram_s, d_s), _angles(gram_t, d_t))


def _gram_and_distances(f: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) products of the centred rows, and their distances; 0, without gradient, where rows coincide."""
    f = f - f.mean(0)
    gram = f @ f.T
    sizes = gram.diagonal()
    both = sizes[:, None] + sizes[None, :]
    squares = both - 2 * gram
    rounding = 8 * torch.finfo(f.dtype).eps * both.detach()
    apart = squares > rounding.clamp(min=1e-12)
    apart = apart & ~torch.eye(len(f), dtype=torch.bool, device=f.device)
    return gram, squares.where(apart, 1.0).sqrt() * apart


def _over_mean(distances: Tensor) -> Tensor:
    mean = distances.sum() / (distances > 0).sum().clamp(min=1)
    return distances / mean.where(mean > 0, 1.0)


def _angles(gram: Tensor, distances: Tensor) -> Tensor:
    """(B, B, B): cos of the angle at i between j and k, (f_j − f_i)·(f_k − f_i) / (d_ij d_ik)."""
    inverse = distances.where(distances > 0, math.inf).reciprocal()
    edge = gram - gram.diagonal()[:, None] / 2
    products = gram[None, :, :] - edge[:, :, None] - edge[:, None, :]
    return products * inverse[:, :, None] * inverse[:, None, :]


@full_precision
def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Probabilistic transfer: mean of P_t log((P_t + ε)/(P_s + ε)), P = (cos + 1)/2 with rows of sum 1.

    ε = 1e-7; the mean is over the B² pairs.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features, of any other shape.

    Returns:
        A scalar ≥ 0.

    Raises:
        RequestError: The batch sizes differ.

    Transfers: how likely one sample of the batch is another's neighbour.
    Use: embeddings for retrieval, of any two widths, even of teachers that read another modality; no labels.
    Source: Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer, ECCV 2018,
        arXiv:1803.10837; recommended weight 30000.
    """
    p_s, p_t = (_neighbours(f) for f in _rows(student, teacher))
    return (p_t * ((p_t + 1e-7) / (p_s + 1e-7)).log()).mean()


def _neighbours(f: Tensor) -> Tensor:
    """(B, B) probabilities that one sample picks another as its neighbour."""
    direction = unit(f)
    # Half of it, as in P, would cancel in the next line; rounding may bring a cosine below −1.
    kernel = (direction @ direction.T + 1).clamp(min=0)
    return kernel / kernel.sum(1, keepdim=True)


@full_precision
def correlation(student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2) -> Tensor:
    """Correlation congruence: mean of (K_s − K_t)² over all pairs, K = exp(−γ‖x − y‖²) of f at length 1.

    K is taken by its Taylor series Σ_{p ≤ P} e^{−2γ} (2γ)^p / p! · (xᵀy)^p: the paper's form. Another goes by the same
    name in the comparisons that began with CRD's (arXiv:1910.10699): |f_s − f_t| multiplied between neighbours in the
    batch, at weight 0.02. It is 0 also where the student is right on every second sample only, and is not in here.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features, of any other shape.
        gamma: γ > 0 of the Gaussian.
        order: P ≥ 1, where the series ends.

    Returns:
        A scalar ≥ 0.

    Raises:
        RequestError: The batch sizes differ, or an option does not fit.

    Transfers: how alike each two samples of the batch are, by a Gaussian kernel.
    Use: beside `kd`, in batches that hold several samples of a class.
    Source: Peng et al.: Correlation Congruence for Knowledge Distillation, ICCV 2019, arXiv:1904.01802;
        recommended weight 100 on CIFAR-10.
    """
    if order < 1 or not gamma > 0:
        raise RequestError(f"correlation needs gamma above 0 and order 1 or more, not {gamma} and {order}")
    k_s, k_t = (_gaussian(f, gamma, order) for f in _rows(student, teacher))
    return F.mse_loss(k_s, k_t)


def _gaussian(f: Tensor, gamma: float, order: int) -> Tensor:
    direction = unit(f)
    cosine = direction @ direction.T
    factors = [math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)]
    series = torch.full_like(cosine, factors[order])
    for factor in reversed(factors[:order]):
        series = series * cosine + factor
    return series


@full_precision
def channel_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Channel correlation: ‖Ĝ_s − Ĝ_t‖²_F / C, G = F Fᵀ of the (C, HW) channels, Ĝ its rows of length 1.

    Args:
        student: (B, C, H_s, W_s) feature map, or any (B, C, ...).
        teacher: (B, C, H_t, W_t) feature map with as many channels.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The batch sizes or the channels differ.

    Transfers: how alike each two channels are within a sample.
    Use: classification and segmentation, with as many channels on both sides or an adapter; no labels.
    Source: Liu et al.: Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation,
        ICCV 2021, arXiv:2202.03680; recommended weight 2.5.
    """
    agree(student, teacher, (3, 4, 5), 0, 1)
    g_s, g_t = (unit(f.flatten(2) @ f.flatten(2).mT) for f in (student, teacher))
    return mean_square(g_s, g_t) * g_s.shape[1]


def _rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Each side's features as (B, D_s) and (B, D_t)."""
    several_samples(student, teacher)
    return student.flatten(1), teacher.flatten(1)
