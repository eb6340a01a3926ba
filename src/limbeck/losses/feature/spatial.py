"""Losses on what the maps of a layer say of places and channels: AT, CWD, PKD, SimKD."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.losses.maps import pool_to, pool_to_smaller
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import agree, check_temperature, same_shape, several_samples
from limbeck.losses.vectors import uncorrelated


@full_precision
def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer: mean over positions of (â_s − â_t)², â the L2-normalised mean over channels of f².

    Channels may differ; the larger map is average-pooled to the smaller one's height and width.

    Args:
        student: (B, C_s, H_s, W_s) feature map.
        teacher: (B, C_t, H_t, W_t) feature map.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: Not two maps, or of different batch sizes.

    Transfers: the places of a map that are active.
    Use: convolutional networks whose stages differ in width: no adapter is needed; no labels.
    Source: Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv:1612.03928;
        recommended weight 1000.
    """
    agree(student, teacher, (4,), 0)
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    a_s, a_t = _attention_map(student, size), _attention_map(teacher, size)
    return mean_square(a_s, a_t)


def _attention_map(feature: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) → (B, h·w), each row of length 1."""
    # The sum of the squares has the direction of their mean, and a gradient that is not divided.
    return F.normalize(pool_to(feature, size).square().sum(1).flatten(1), dim=1)


@full_precision
def channel(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Channel-wise distillation: T²/C · Σ_c KL(φ(f_t,c) ‖ φ(f_s,c)), φ = softmax over the positions at T.

    Args:
        student: (B, C, H, W) feature map, or the logits of a segmentation model.
        teacher: (B, C, H, W) map of the same shape.
        temperature: T > 0.

    Returns:
        (B,) values ≥ 0, 0 where each channel looks at the same places.

    Raises:
        RequestError: The shapes differ.

    Transfers: for each channel the places where it is active.
    Use: dense prediction: segmentation, on the logits or the features, and detection.
    Source: Shu et al.: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv:2011.13256;
        recommended weight 3 on logits, 50 on features.
    """
    agree(student, teacher, (4,), 0, 1, 2, 3)
    check_temperature(temperature)
    log_s, log_t = (F.log_softmax(f.flatten(2) / temperature, dim=2) for f in (student, teacher))
    return (log_t.exp() * (log_t - log_s)).sum(2).mean(1) * temperature**2


@full_precision
def pearson(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD: mean over channels of 1 − ρ, that is ½ mean (f̂_s − f̂_t)² of features standardised in each channel.

    ρ is Pearson's correlation of a channel over batch and positions. A channel that is constant
    on both sides counts 0, on one side 1; it passes no gradient.

    Args:
        student: (B, C, ...) features.
        teacher: (B, C, ...) features of the same shape.

    Returns:
        A scalar in [0, 2].

    Raises:
        RequestError: The shapes differ.

    Transfers: the pattern of each channel, up to scale and offset.
    Use: detectors, also where teacher and student are of different architecture.
    Source: Cao et al.: PKD, NeurIPS 2022, arXiv:2207.02039; recommended weight 6 for detectors.
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    f_s, f_t = (f.transpose(0, 1).flatten(1) for f in (student, teacher))
    return uncorrelated(f_s, f_t).mean()


@full_precision
def simkd(student: Tensor, teacher: Tensor) -> Tensor:
    """SimKD: mean of (f_s − f_t)² of the last maps, the student's projected to the teacher's channels.

    The larger map is average-pooled to the smaller. The student then uses the teacher's classifier as it is.

    Args:
        student: (B, C, H_s, W_s) projected feature map.
        teacher: (B, C, H_t, W_t) feature map.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: Not two maps of one batch and as many channels.

    Transfers: the last feature map, for the teacher's classifier to read.
    Use: where the shipped student may hold a projector and the teacher's classifier; no labels.
    Source: Chen et al.: Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022,
        arXiv:2203.14001; recommended weight 1, without other losses.
    """
    agree(student, teacher, (4,), 0, 1)
    f_s, f_t = pool_to_smaller(student, teacher)
    return mean_square(f_s, f_t)
