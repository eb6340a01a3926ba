"""Wide residual networks for 32×32 images.

Each block is (batch norm, ReLU, 3×3 convolution) twice, plus a shortcut. Where a block changes the width,
shortcut and branch both read the activated map; that activation is therefore written at the end of the stage
before, so that a stage's output is the map after its ReLU. The plain sum is that of "stage1.blocks".

Source: Zagoruyko and Komodakis, arXiv 1605.07146.
"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.models.networks.staged import chain, convolution, image, kaiming, named

STEM = 16


class WideBlock(nn.Module):
    """branch(x) + shortcut(x) on maps (B, C, H, W), without an activation after the sum."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x) + self.shortcut(x)
        return y


def wrn_16_1(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """WRN-16-1; see `wrn_16_2`."""
    return _wide_resnet(16, 1, input_shape, classes)


def wrn_16_2(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """WRN-16-2, depth 16 and twice as wide: 703,284 parameters with 3 input channels and 100 classes.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.
    """
    return _wide_resnet(16, 2, input_shape, classes)


def wrn_40_1(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """WRN-40-1, 569,780 parameters with 100 classes; see `wrn_16_2`."""
    return _wide_resnet(40, 1, input_shape, classes)


def wrn_40_2(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """WRN-40-2, 2,255,156 parameters with 100 classes; see `wrn_16_2`."""
    return _wide_resnet(40, 2, input_shape, classes)


def _wide_resnet(depth: int, widen: int, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    channels, _, _ = image(input_shape)
    widths = (STEM, 16 * widen, 32 * widen, 64 * widen)
    stem = nn.Sequential(convolution(channels, STEM, kernel=3))
    if widths[1] != STEM:
        stem.extend(_activation(STEM))
    stages = [
        _stage(width, following, depth=(depth - 4) // 6, stride=stride)
        for width, following, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
    ]
    classifier = nn.Linear(widths[-1], classes)
    network = chain(stages, classifier, stem=stem)
    kaiming(network)
    nn.init.zeros_(classifier.bias)
    return network


def _stage(c_in: int, c_out: int, *, depth: int, stride: int) -> nn.Sequential:
    blocks = [_block(c_out) for _ in range(depth)]
    if c_in != c_out:
        blocks[0] = _widening_block(c_in, c_out, stride)
    norm, relu = _activation(c_out)
    return named(blocks=nn.Sequential(*blocks), bn=norm, relu=relu)


def _block(width: int) -> WideBlock:
    first, second = (convolution(width, width, kernel=3) for _ in range(2))
    branch = nn.Sequential(*_activation(width), first, *_activation(width), second)
    return WideBlock(branch, nn.Identity())


def _widening_block(c_in: int, c_out: int, stride: int) -> WideBlock:
    first, second = convolution(c_in, c_out, kernel=3, stride=stride), convolution(c_out, c_out, kernel=3)
    branch = nn.Sequential(first, *_activation(c_out), second)
    return WideBlock(branch, convolution(c_in, c_out, kernel=1, stride=stride))


def _activation(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(width), nn.ReLU()
