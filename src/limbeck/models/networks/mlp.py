"""Multi-layer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from limbeck.options import Share, Width


def mlp(
    *, input_shape: tuple[int, ...], classes: int, hidden: Sequence[Width] = (128,), dropout: Share = 0.0
) -> nn.Sequential:
    """A perceptron over the flattened input: for each hidden layer linear, dropout, ReLU; then linear.

    Args:
        input_shape: One sample's shape, without the batch.
        classes: Number of logits.
        hidden: Width of each hidden layer.
        dropout: Probability of zeroing a unit before its ReLU; 0 leaves the layer out.

    >>> from limbeck.models import parameter_count
    >>> parameter_count(mlp(input_shape=(1, 28, 28), classes=10, hidden=(20, 20)))
    16330
    """
    widths = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in pairwise(widths):
        layers.append(nn.Linear(width, following))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
