"""ShuffleNets for 32×32 images, with a 1×1 stem that keeps the size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from limbeck.models.networks.staged import activated, chain, convolution, image, named

STEM = 24
BLOCKS = (4, 8, 4)
V1_WIDTHS, V1_GROUPS = (240, 480, 960), 3
V2_WIDTHS, V2_HEAD = (116, 232, 464), 1024


def shufflenet_v1(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """ShuffleNetV1 with 3 groups: 949,258 parameters with 3 input channels and 100 classes.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.

    Source: Zhang et al., arXiv 1707.01083; this version as in arXiv 1910.10699.
    """
    channels, _, _ = image(input_shape)
    stages = _stages(V1_WIDTHS, GroupedDown, GroupedBlock)
    return chain(stages, nn.Linear(V1_WIDTHS[-1], classes), stem=activated(channels, STEM, kernel=1))


def shufflenet_v2(*, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """ShuffleNetV2 of width 1: 1,355,528 parameters with 3 input channels and 100 classes.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.

    Source: Ma et al., arXiv 1807.11164; this version as in arXiv 1910.10699.
    """
    channels, _, _ = image(input_shape)
    stages = _stages(V2_WIDTHS, SplitDown, SplitBlock)
    head = activated(V2_WIDTHS[-1], V2_HEAD, kernel=1)
    return chain(stages, nn.Linear(V2_HEAD, classes), stem=activated(channels, STEM, kernel=1), head=head)


def _stages(
    widths: tuple[int, ...], down: Callable[[int, int], nn.Module], block: Callable[[int], nn.Module]
) -> list[nn.Module]:
    return [
        nn.Sequential(down(width, following), *(block(following) for _ in range(blocks - 1)))
        for width, following, blocks in zip((STEM, *widths), widths, BLOCKS, strict=False)
    ]


class Shuffle(nn.Module):
    """Deal the channels of (B, C, H, W) out anew: channel i of group g becomes channel g of group i."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        dealt = x.reshape(batch, self.groups, channels // self.groups, height, width).transpose(1, 2)
        return dealt.reshape(batch, channels, height, width)


class GroupedBlock(nn.Module):
    """ReLU(x + branch(x)) with grouped 1×1 convolutions and a shuffle between (ShuffleNetV1, figure 2b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = _grouped_branch(width, width, stride=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(x + self.branch(x))
        return y


class GroupedDown(nn.Module):
    """Halve the size: the branch's channels beside those of the averaged input (ShuffleNetV1, figure 2c)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.branch = _grouped_branch(c_in, c_out - c_in, stride=2)
        self.shortcut = nn.AvgPool2d(3, stride=2, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(torch.cat([self.branch(x), self.shortcut(x)], dim=1))
        return y


def _grouped_branch(c_in: int, c_out: int, *, stride: int) -> nn.Sequential:
    inner = c_out // 4
    # The stem's 24 channels are too few to be grouped (section 3.2 of the paper).
    groups = 1 if c_in == STEM else V1_GROUPS
    return named(
        reduce=activated(c_in, inner, kernel=1, groups=groups),
        shuffle=Shuffle(groups),
        depthwise=activated(inner, inner, kernel=3, stride=stride, groups=inner),
        expand=convolution(inner, c_out, kernel=1, groups=V1_GROUPS),
        bn=nn.BatchNorm2d(c_out),
    )


class SplitBlock(nn.Module):
    """Half of the channels pass, half go through the branch; then a shuffle (ShuffleNetV2, figure 3c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = named(
            first=activated(half, half, kernel=1),
            depthwise=convolution(half, half, kernel=3, groups=half),
            bn=nn.BatchNorm2d(half),
            last=activated(half, half, kernel=1),
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        passed, worked = x.chunk(2, dim=1)
        y: Tensor = self.shuffle(torch.cat([passed, self.branch(worked)], dim=1))
        return y


class SplitDown(nn.Module):
    """Halve the size on two branches over all channels; then a shuffle (ShuffleNetV2, figure 3d)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.shortcut = named(
            depthwise=convolution(c_in, c_in, kernel=3, stride=2, groups=c_in),
            bn=nn.BatchNorm2d(c_in),
            last=activated(c_in, half, kernel=1),
        )
        self.branch = named(
            first=activated(c_in, half, kernel=1),
            depthwise=convolution(half, half, kernel=3, stride=2, groups=half),
            bn=nn.BatchNorm2d(half),
            last=activated(half, half, kernel=1),
        )
        self.shuffle = Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shuffle(torch.cat([self.shortcut(x), self.branch(x)], dim=1))
        return y
