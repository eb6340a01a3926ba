"""A small convolutional network for any image size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from limbeck.models.networks.staged import Staged
from limbeck.options import Share, Width


def cnn(
    *, input_shape: tuple[int, ...], classes: int, channels: Sequence[Width] = (16, 32), dropout: Share = 0.0
) -> Staged:
    """Stages of 3×3 convolution, batch norm and ReLU, halved by max-pooling in between; then mean and linear.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        channels: Width of each stage.
        dropout: Probability of zeroing a pooled feature before the last layer; 0 leaves the layer out.

    >>> cnn(input_shape=(1, 8, 8), classes=10, channels=(16, 32)).stages
    ('stage1', 'stage2')
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    width = input_shape[0]
    for number, following in enumerate(channels, start=1):
        if number > 1:
            parts[f"pool{number - 1}"] = nn.MaxPool2d(2, ceil_mode=True)
        conv = nn.Conv2d(width, following, 3, padding=1, bias=False)
        parts[f"stage{number}"] = nn.Sequential(conv, nn.BatchNorm2d(following), nn.ReLU())
        width = following
    parts["mean"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    if dropout:
        parts["dropout"] = nn.Dropout(dropout)
    parts["classifier"] = nn.Linear(width, classes)
    return Staged(parts)
