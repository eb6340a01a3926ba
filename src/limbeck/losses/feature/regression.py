"""Losses that judge the student's features by the teacher's own classifier: SRRL."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from limbeck.losses.precision import full_precision
from limbeck.losses.samples import mean_square
from limbeck.losses.shapes import agree, same_shape, several_samples


@full_precision
def srrl(student: Tensor, teacher: Tensor, *, classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """Softmax regression: mean (f_s − f_t)² + mean (h(f_s) − h(f_t))², f pooled, h the teacher's classifier.

    Args:
        student: (B, D, ...) features with the teacher's D, by an adapter; maps are averaged over positions.
        teacher: (B, D, ...) features before the teacher's classifier.
        classifier: h, (B, D) → (B, C) logits, frozen, such as the teacher's last linear layer.

    Returns:
        (B,) values ≥ 0.

    Raises:
        RequestError: The batches or D differ.

    Transfers: the features before the classifier, and what the teacher's classifier makes of them.
    Use: classifiers, where the teacher's last layer is at hand; teacher and student may be of different architecture.
    Source: Yang et al.: Knowledge Distillation via Softmax Regression Representation Learning, ICLR 2021;
        recommended weight 1.
    """
    several_samples(student, teacher)
    f_s, f_t = (f.flatten(2).mean(2) if f.dim() > 2 else f for f in (student, teacher))
    same_shape(f_s, f_t)
    l_s, l_t = classifier(f_s), classifier(f_t)
    agree(l_s, l_t, (2,), 0, 1, remedy="the classifier gives (B, C) logits")
    return mean_square(f_s, f_t) + mean_square(l_s, l_t)
