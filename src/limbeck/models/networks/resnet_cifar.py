"""The narrow ResNets for 32×32 images that distillation methods are compared on.

Three stages of basic blocks with strides 1, 2, 2; a net of depth 6n + 2 has n blocks a stage. The "x4" nets
have 32 stem channels and stages of 64, 128, 256.

Source: He et al., arXiv 1512.03385, section 4.2; widths and shortcuts as in "Contrastive Representation
Distillation", arXiv 1910.10699.
"""

from __future__ import annotations

from torch import nn

from limbeck.models.networks.residual import Shortcut, basic, residual_stage
from limbeck.models.networks.staged import activated, chain, image, kaiming

NARROW = (16, 16, 32, 64)
TIMES_FOUR = (32, 64, 128, 256)


def resnet8(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-8 for small images; see `resnet20`."""
    return _resnet(8, NARROW, input_shape, classes, shortcut)


def resnet14(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-14 for small images; see `resnet20`."""
    return _resnet(14, NARROW, input_shape, classes, shortcut)


def resnet20(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-20 for small images: 278,324 parameters with 3 input channels and 100 classes.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        shortcut: What brings a block's input to its output where the shape changes: "B", a 1×1 convolution; "A", zeros
            for the new channels, without parameters, as many networks for CIFAR-10 are trained.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.
    """
    return _resnet(20, NARROW, input_shape, classes, shortcut)


def resnet32(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-32 for small images; see `resnet20`."""
    return _resnet(32, NARROW, input_shape, classes, shortcut)


def resnet44(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-44 for small images; see `resnet20`."""
    return _resnet(44, NARROW, input_shape, classes, shortcut)


def resnet56(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-56 for small images, 861,620 parameters with 100 classes; see `resnet20`."""
    return _resnet(56, NARROW, input_shape, classes, shortcut)


def resnet110(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-110 for small images; see `resnet20`."""
    return _resnet(110, NARROW, input_shape, classes, shortcut)


def resnet8x4(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-8 four times as wide, 1,233,540 parameters with 100 classes; see `resnet20`."""
    return _resnet(8, TIMES_FOUR, input_shape, classes, shortcut)


def resnet32x4(*, input_shape: tuple[int, ...], classes: int, shortcut: Shortcut = "B") -> nn.Module:
    """ResNet-32 four times as wide, 7,433,860 parameters with 100 classes; see `resnet20`."""
    return _resnet(32, TIMES_FOUR, input_shape, classes, shortcut)


def _resnet(
    depth: int, widths: tuple[int, ...], input_shape: tuple[int, ...], classes: int, shortcut: Shortcut
) -> nn.Module:
    channels, _, _ = image(input_shape)
    blocks = (depth - 2) // 6
    stages = [
        residual_stage(basic, width, following, depth=blocks, stride=stride, kind=shortcut)
        for width, following, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
    ]
    network = chain(stages, nn.Linear(widths[-1], classes), stem=activated(channels, widths[0], kernel=3))
    kaiming(network)
    return network
