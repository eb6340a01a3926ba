"""The two convolutional networks of PyTorch's knowledge-distillation tutorial.

Weights start as PyTorch's layers do, drawn in the order of the layers: a seed gives the tutorial's own start.

Source: https://docs.pytorch.org/tutorials/beginner/knowledge_distillation_tutorial.html
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from limbeck.models.networks.staged import Staged, image

POOL = "pool"


def tutorial_teacher(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Four convolutions (128, 64, 64, 32) in two stages, then 512 units; 1,186,986 parameters on CIFAR-10.

    `features` gives the last feature map, `flatten` its vector, `classifier` the logits. The embedding is
    that vector: 2,048 numbers for 32×32 images.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image of 4×4 or more.
    """
    return _tutorial(input_shape, classes, (128, 64, POOL, 64, 32, POOL), hidden=512, stages=(3, 8))


def tutorial_student(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions of 16 channels, then 256 units; 267,738 parameters on CIFAR-10.

    Its parts have the teacher's names; the embedding has 1,024 numbers for 32×32 images.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image of 4×4 or more.
    """
    return _tutorial(input_shape, classes, (16, POOL, 16, POOL), hidden=256, stages=(1, 4))


def _tutorial(
    input_shape: tuple[int, ...],
    classes: int,
    layout: tuple[int | str, ...],
    hidden: int,
    stages: tuple[int, ...],
) -> Staged:
    channels, height, width = image(input_shape, least=4)
    layers: list[nn.Module] = []
    for step in layout:
        if isinstance(step, int):
            layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU()]
            channels = step
        else:
            layers.append(nn.MaxPool2d(2))
    vector = channels * (height // 4) * (width // 4)
    classifier = nn.Sequential(nn.Linear(vector, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, classes))
    network = Staged(OrderedDict(features=nn.Sequential(*layers), flatten=nn.Flatten(), classifier=classifier))
    network.stages = tuple(f"features.{index}" for index in stages)
    return network
