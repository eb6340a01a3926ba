"""ResNet-18 … ResNet-152, for small images or, with their first stem, for large ones."""

from __future__ import annotations

from torch import nn

from limbeck.errors import unknown
from limbeck.models.networks.residual import Branch, basic, bottleneck, residual_stage
from limbeck.models.networks.staged import activated, chain, image, kaiming, named

WIDTHS = (64, 128, 256, 512)


def resnet18(*, input_shape: tuple[int, ...], classes: int, stem: str = "small") -> nn.Module:
    """ResNet-18: 11,173,962 parameters with 3 input channels, 10 classes and the small stem.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        stem: "small", one 3×3 convolution that keeps the size; or "imagenet", the paper's 7×7 with stride 2
            and a max-pool, which divide the size by 4.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image, or `stem` is unknown.

    Source: He et al., arXiv 1512.03385; stride in the 3×3 convolution of a bottleneck.
    """
    return _resnet(basic, 1, (2, 2, 2, 2), input_shape, classes, stem)


def resnet34(*, input_shape: tuple[int, ...], classes: int, stem: str = "small") -> nn.Module:
    """ResNet-34; see `resnet18`."""
    return _resnet(basic, 1, (3, 4, 6, 3), input_shape, classes, stem)


def resnet50(*, input_shape: tuple[int, ...], classes: int, stem: str = "small") -> nn.Module:
    """ResNet-50, of bottleneck blocks: 23,520,842 parameters with 10 classes; see `resnet18`."""
    return _resnet(bottleneck, 4, (3, 4, 6, 3), input_shape, classes, stem)


def resnet101(*, input_shape: tuple[int, ...], classes: int, stem: str = "small") -> nn.Module:
    """ResNet-101, of bottleneck blocks; see `resnet18`."""
    return _resnet(bottleneck, 4, (3, 4, 23, 3), input_shape, classes, stem)


def resnet152(*, input_shape: tuple[int, ...], classes: int, stem: str = "small") -> nn.Module:
    """ResNet-152, of bottleneck blocks; see `resnet18`."""
    return _resnet(bottleneck, 4, (3, 8, 36, 3), input_shape, classes, stem)


def _resnet(
    branch: Branch,
    expansion: int,
    depths: tuple[int, ...],
    input_shape: tuple[int, ...],
    classes: int,
    stem: str,
) -> nn.Module:
    channels, _, _ = image(input_shape)
    stages: list[nn.Module] = []
    width = WIDTHS[0]
    for planes, depth, stride in zip(WIDTHS, depths, (1, 2, 2, 2), strict=True):
        stages.append(residual_stage(branch, width, planes * expansion, depth=depth, stride=stride))
        width = planes * expansion
    network = chain(stages, nn.Linear(width, classes), stem=_stem(stem, channels))
    kaiming(network)
    return network


def _stem(name: str, channels: int) -> nn.Module:
    if name == "small":
        return activated(channels, WIDTHS[0], kernel=3)
    if name == "imagenet":
        first = activated(channels, WIDTHS[0], kernel=7, stride=2)
        return named(first=first, pool=nn.MaxPool2d(3, stride=2, padding=1))
    raise unknown("stem", name, ("small", "imagenet"))
