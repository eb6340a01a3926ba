"""MobileNets: separable convolutions (V1) and inverted residuals (V2)."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.models.networks.staged import activated, chain, convolution, image, kaiming, named
from limbeck.options import Factor, Width

V1_STAGES = (
    ((64, 1),),
    ((128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *((512, 1),) * 5),
    ((1024, 2), (1024, 1)),
)
"""(channels, stride) of each separable block of MobileNetV1."""

V2_STAGES = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)
"""(expansion, channels, blocks, first stride) of each group of blocks of MobileNetV2 for small images."""


def mobilenet_v1(
    *, input_shape: tuple[int, ...], classes: int, width: Factor = 1.0, stem_stride: Width = 2
) -> nn.Module:
    """MobileNetV1: 4,231,976 parameters with 3 input channels, 1,000 classes and width 1.

    With the paper's strides, which PaddleSlim uses for 32×32 images too, the last maps of those have one
    position; `stem_stride=1` doubles every map.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        width: Factor of all channel numbers.
        stem_stride: Stride of the first convolution.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.

    Source: Howard et al., arXiv 1704.04861; start as in PaddleSlim (Kaiming-uniform).
    """
    channels, _, _ = image(input_shape)
    c = int(32 * width)
    stem = activated(channels, c, kernel=3, stride=stem_stride)
    stages: list[nn.Module] = []
    for blocks in V1_STAGES:
        stage = nn.Sequential()
        for full, stride in blocks:
            stage.append(_separable(c, int(full * width), stride))
            c = int(full * width)
        stages.append(stage)
    classifier = nn.Linear(c, classes)
    network = chain(stages, classifier, stem=stem)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    nn.init.zeros_(classifier.bias)
    return network


def mobilenet_v2(*, input_shape: tuple[int, ...], classes: int, width: Factor = 0.5) -> nn.Module:
    """MobileNetV2 as distillation methods are compared on: 812,836 parameters with 100 classes.

    It differs from the paper's in the stride of its second group of blocks, 1, and in having ReLU for ReLU6.
    A stage's output is linear, as that of every inverted residual; the head's is after its ReLU.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits.
        width: Factor of all channel numbers but the head's 1,280, which grows only above 1.

    Returns:
        A module from (B, C, H, W) to (B, classes).

    Raises:
        RequestError: `input_shape` is no image.

    Source: Sandler et al., arXiv 1801.04381; this version as in arXiv 1910.10699.
    """
    channels, _, _ = image(input_shape)
    c = int(32 * width)
    stem = activated(channels, c, kernel=3, stride=2)
    stages: list[nn.Module] = []
    for groups in V2_STAGES:
        stage = nn.Sequential()
        for expansion, full, blocks, first in groups:
            for stride in (first, *(1,) * (blocks - 1)):
                stage.append(InvertedResidual(c, int(full * width), expansion=expansion, stride=stride))
                c = int(full * width)
        stages.append(stage)
    last = int(1280 * max(width, 1.0))
    classifier = nn.Linear(last, classes)
    network = chain(stages, classifier, stem=stem, head=activated(c, last, kernel=1))
    kaiming(network)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    return network


class InvertedResidual(nn.Module):
    """1×1 up to expansion · c_in channels, depthwise 3×3, linear 1×1 to c_out; plus x where shapes allow it.

    Args:
        c_in: Channels of the input (B, c_in, H, W).
        c_out: Channels of the output.
        expansion: Factor of the channels in between.
        stride: Stride of the depthwise convolution.
    """

    def __init__(self, c_in: int, c_out: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        inner = c_in * expansion
        self.branch = named(
            expand=activated(c_in, inner, kernel=1),
            depthwise=activated(inner, inner, kernel=3, stride=stride, groups=inner),
            project=convolution(inner, c_out, kernel=1),
            bn=nn.BatchNorm2d(c_out),
        )
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        return x + y if self.residual else y


def _separable(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    return named(
        depthwise=activated(c_in, c_in, kernel=3, stride=stride, groups=c_in),
        pointwise=activated(c_in, c_out, kernel=1),
    )
