"""The task that a loss on labels belongs to, where only the loss is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.tasks.classification import Classification
from limbeck.tasks.multi_label import MultiLabel
from limbeck.tasks.regression import Regression
from limbeck.tasks.task import Task

_NUMBERS = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
_LABELS = (F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss, nn.BCEWithLogitsLoss)


def of_loss(loss: Callable[[Tensor, Any], Tensor]) -> Task:
    """Regression for torch's losses between numbers, several labels for its binary cross-entropy, else classification.

    >>> of_loss(nn.MSELoss())
    Regression(monitor='rmse', mode='min')
    """
    behind = getattr(loss, "func", loss)
    kind = type(behind) if isinstance(behind, nn.Module) else behind
    if kind in _NUMBERS:
        return Regression(loss=loss)
    return MultiLabel(loss=loss) if kind in _LABELS else Classification(loss=loss)
