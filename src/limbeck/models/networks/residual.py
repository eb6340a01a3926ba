"""The residual blocks of all ResNets here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models.networks.staged import convolution, named

Branch = Callable[[int, int, int], nn.Sequential]
"""Makes a residual branch of (channels in, channels out, stride)."""
Shortcut = Literal["A", "B"]
"""Where the shape changes: A, zeros for the new channels; B, a 1×1 convolution (arXiv 1512.03385)."""


class Residual(nn.Module):
    """ReLU(branch(x) + shortcut(x)) on maps (B, C, H, W)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return y


def basic(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """Two 3×3 convolutions, the first with the stride."""
    return named(
        conv1=convolution(c_in, c_out, kernel=3, stride=stride),
        bn1=nn.BatchNorm2d(c_out),
        relu1=nn.ReLU(),
        conv2=convolution(c_out, c_out, kernel=3),
        bn2=nn.BatchNorm2d(c_out),
    )


def bottleneck(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """1×1 down to c_out / 4 channels, 3×3 with the stride, 1×1 up to c_out."""
    width = c_out // 4
    return named(
        conv1=convolution(c_in, width, kernel=1),
        bn1=nn.BatchNorm2d(width),
        relu1=nn.ReLU(),
        conv2=convolution(width, width, kernel=3, stride=stride),
        bn2=nn.BatchNorm2d(width),
        relu2=nn.ReLU(),
        conv3=convolution(width, c_out, kernel=1),
        bn3=nn.BatchNorm2d(c_out),
    )


class PaddedShortcut(nn.Module):
    """Every `stride`-th row and column of maps (B, C, H, W), the new channels zero, half of them on each side."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more = more
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        before = self.more // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.more - before))

    def extra_repr(self) -> str:
        return f"{self.more} channels, stride={self.stride}"


def residual_stage(
    branch: Branch, c_in: int, c_out: int, *, depth: int, stride: int, kind: Shortcut = "B"
) -> nn.Sequential:
    """`depth` residual blocks; the first has the stride, and a shortcut of this kind where the shape changes."""
    blocks = [Residual(branch(c_in, c_out, stride), shortcut(c_in, c_out, stride, kind))]
    blocks += [Residual(branch(c_out, c_out, 1), nn.Identity()) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def shortcut(c_in: int, c_out: int, stride: int, kind: Shortcut = "B") -> nn.Module:
    """The identity; where the shape changes zero padding (A), or a 1×1 convolution and batch norm (B)."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    if kind == "A":
        return PaddedShortcut(c_out - c_in, stride)
    return named(conv=convolution(c_in, c_out, kernel=1, stride=stride), bn=nn.BatchNorm2d(c_out))
