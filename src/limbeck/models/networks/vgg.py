"""VGG with batch norm for 32×32 images: five stages, no hidden linear layers.

Source: Simonyan and Zisserman, arXiv 1409.1556; the versions for small images as in arXiv 1910.10699.
"""

from __future__ import annotations

from torch import nn

from limbeck.models.networks.staged import chain, image, kaiming

WIDTHS = (64, 128, 256, 512, 512)


def vgg8(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """VGG-8, one convolution a stage: 3,965,028 parameters with 3 input channels and 100 classes.

    Stages 2 to 4 begin with a 2×2 max-pool; stage 5 does so for images of 64×64 and larger only.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image of 8×8 or more.
    """
    return _vgg((1, 1, 1, 1, 1), input_shape, classes)


def vgg13(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """VGG-13, two convolutions a stage: 9,462,180 parameters with 100 classes; see `vgg8`."""
    return _vgg((2, 2, 2, 2, 2), input_shape, classes)


def _vgg(depths: tuple[int, ...], input_shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, height, width = image(input_shape, least=8)
    pools = (False, True, True, True, min(height, width) >= 64)
    stages: list[nn.Module] = []
    for following, depth, pool in zip(WIDTHS, depths, pools, strict=True):
        stage = nn.Sequential(*([nn.MaxPool2d(2)] if pool else []))
        for _ in range(depth):
            conv = nn.Conv2d(channels, following, 3, padding=1)
            stage.extend([conv, nn.BatchNorm2d(following), nn.ReLU()])
            channels = following
        stages.append(stage)
    classifier = nn.Linear(channels, classes)
    network = chain(stages, classifier)
    kaiming(network)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return network
