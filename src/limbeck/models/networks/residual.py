"""The residual blocks of all ResNets here."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from limbeck.models.networks.staged import convolution, named

Branch = Callable[[int, int, int], nn.Sequential]
"""Makes a residual branch of (channels in, channels out, stride)."""


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


def residual_stage(branch: Branch, c_in: int, c_out: int, *, depth: int, stride: int) -> nn.Sequential:
    """`depth` residual blocks; the first has the stride, and a 1×1 shortcut where the shape changes."""
    blocks = [Residual(branch(c_in, c_out, stride), shortcut(c_in, c_out, stride))]
    blocks += [Residual(branch(c_out, c_out, 1), nn.Identity()) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


def shortcut(c_in: int, c_out: int, stride: int) -> nn.Module:
    """The identity, or a 1×1 convolution and batch norm where the shape changes (arXiv 1512.03385)."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return named(conv=convolution(c_in, c_out, kernel=1, stride=stride), bn=nn.BatchNorm2d(c_out))
