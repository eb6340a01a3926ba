"""Distances of two feature tensors of one shape, element by element or as directions.

Features f are (B, ...) tensors; a term's adapter makes the shapes one.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.samples import by_sample, mean_square
from limbeck.losses.shapes import same_shape, several_samples
from limbeck.losses.vectors import length


@full_precision
def mse(student: Tensor, teacher: Tensor, *, tokens: Tensor | None = None) -> Tensor:
    """Hint loss: mean of (f_s − f_t)² over all but the batch.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features of the same shape.
        tokens: Where both hold tokens of texts and no padding, as booleans that broadcast over them; None everywhere.
            A term gives it.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The shapes differ.

    Transfers: the values of a hidden tensor.
    Use: a thin or deep student guided in its middle, by itself first (scheme two-stage) or beside the labels; an
        adapter where shapes differ.
    Source: Romero et al.: FitNets, ICLR 2015, arXiv:1412.6550; recommended weight 100 with a trained adapter.
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    return mean_square(student, teacher, tokens)


@full_precision
def l1(student: Tensor, teacher: Tensor, *, tokens: Tensor | None = None) -> Tensor:
    """Mean of |f_s − f_t| over all but the batch.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features of the same shape.
        tokens: Where both hold tokens of texts and no padding, as booleans that broadcast over them; None everywhere.
            A term gives it.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The shapes differ.

    Transfers: the values of a hidden tensor.
    Use: in place of `mse` where a few large differences should not outweigh the rest.
    Source: the L1 form of FitNets' hint, arXiv:1412.6550.
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    return by_sample((student - teacher).abs(), tokens)


@full_precision
def smooth_l1(student: Tensor, teacher: Tensor, *, threshold: float = 1.0, tokens: Tensor | None = None) -> Tensor:
    """Huber-like distance d = f_s − f_t: mean over all but the batch of d²/2δ where |d| < δ, else |d| − δ/2.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features of the same shape.
        threshold: δ > 0, where the square turns into a line.
        tokens: Where both hold tokens of texts and no padding, as booleans that broadcast over them; None everywhere.
            A term gives it.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The shapes differ, or the threshold is not above 0.

    Transfers: the values of a hidden tensor.
    Use: in place of `mse` where large differences occur: beyond δ its gradient grows no more.
    Source: Girshick: Fast R-CNN, ICCV 2015, arXiv:1504.08083 (the function).
    """
    several_samples(student, teacher)
    same_shape(student, teacher)
    if not threshold > 0:
        raise RequestError(f"threshold must be above 0, not {threshold}")
    return by_sample(F.smooth_l1_loss(student, teacher, reduction="none", beta=threshold), tokens)


@full_precision
def cosine(student: Tensor, teacher: Tensor, *, pool: bool = False) -> Tensor:
    """1 − cos(f_s, f_t) of the flattened features.

    Args:
        student: (B, ...) features.
        teacher: (B, ...) features with as many elements a sample.
        pool: Average-pool the teacher's flattened features first, where they have a multiple of the student's.

    Returns:
        (B,) values in [0, 2]; 0 for the same direction, whatever the lengths.

    Raises:
        RequestError: The numbers of elements differ.

    Transfers: the direction of a hidden vector, not its length.
    Use: the vectors before the classifiers, where their lengths differ between the networks.
    Source: the cosine-embedding loss with target 1, as in PyTorch's knowledge-distillation tutorial.
    """
    several_samples(student, teacher)
    student, teacher = student.flatten(1), teacher.flatten(1)
    several_samples(student, teacher)
    if pool and teacher.shape[1] % student.shape[1] == 0:
        teacher = F.avg_pool1d(teacher, teacher.shape[1] // student.shape[1])
    same_shape(student, teacher)
    return 1 - (student * teacher).sum(1) / length(student) / length(teacher)
