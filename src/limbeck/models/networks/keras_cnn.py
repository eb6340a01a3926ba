"""The convolutional networks of Keras's knowledge-distillation example."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.networks.staged import Staged, image, named
from limbeck.options import Width


class SamePad2d(nn.Module):
    """Pad maps (B, C, H, W) as Keras's padding="same" does, so that ⌈H / stride⌉ rows come out.

    The p = max((⌈n / stride⌉ − 1) · stride + kernel − n, 0) rows or columns are split in two halves, the
    larger one at the end: a 3×3 kernel with stride 2 pads 28 rows at the end only, and 7 rows at both ends.

    Args:
        kernel: Height and width of the kernel that follows.
        stride: Its stride.
        value: What the padding holds; −∞ before max-pooling.
    """

    def __init__(self, kernel: int, stride: int, value: float = 0.0) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = self._split(x.shape[2])
        left, right = self._split(x.shape[3])
        return F.pad(x, (left, right, top, bottom), value=self.value)

    def _split(self, n: int) -> tuple[int, int]:
        total = max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0)
        return total // 2, total - total // 2

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, value={self.value}"


def keras_cnn(*, input_shape: tuple[int, ...], classes: int, channels: Sequence[Width] = (256, 512)) -> nn.Module:
    """The example's teacher, or with channels (16, 32) its student: two convolutions and a linear layer.

    Weights start Glorot-uniform and biases at zero, as Keras's do.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        channels: Width of the two convolutions.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image, or `channels` are not two numbers.

    Source: https://keras.io/examples/vision/knowledge_distillation/
    """
    c, height, width = image(input_shape)
    if len(channels) != 2:
        raise RequestError(f"keras_cnn has two convolutions; channels {tuple(channels)} are not two numbers")
    first, second = channels
    positions = math.ceil(height / 4) * math.ceil(width / 4)
    network = Staged(
        OrderedDict(
            stage1=named(pad=SamePad2d(3, 2), conv=nn.Conv2d(c, first, 3, stride=2), activation=nn.LeakyReLU(0.2)),
            pool=named(pad=SamePad2d(2, 1, value=-math.inf), max=nn.MaxPool2d(2, stride=1)),
            stage2=named(pad=SamePad2d(3, 2), conv=nn.Conv2d(first, second, 3, stride=2)),
            flatten=nn.Flatten(),
            classifier=nn.Linear(second * positions, classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
