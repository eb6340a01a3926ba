"""What the networks here share: chains of named parts that know their stages and their embedding."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from limbeck.errors import RequestError


class Staged(nn.Sequential):
    """A chain of named parts; those whose name begins with "stage" are its stages.

    Args:
        parts: The parts by name, in the order in which they run; the last linear one is called "classifier".

    Attributes:
        stages: Paths of the modules whose outputs are the stages' feature maps, first to last.
        embedding: Tap of the vector that the classifier reads.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__(parts)
        self.stages: tuple[str, ...] = tuple(name for name in parts if name.startswith("stage"))
        self.embedding = "classifier:in"


def chain(
    stages: Sequence[nn.Module],
    classifier: nn.Linear,
    *,
    stem: nn.Module | None = None,
    head: nn.Module | None = None,
) -> Staged:
    """Stem, stages, head, mean over positions, classifier; the parts that are None are left out."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if stem is not None:
        parts["stem"] = stem
    for number, stage in enumerate(stages, start=1):
        parts[f"stage{number}"] = stage
    if head is not None:
        parts["head"] = head
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": classifier}
    return Staged(parts)


def named(**parts: nn.Module) -> nn.Sequential:
    """A Sequential whose parts have names, so that taps can say "stage1.0.branch.conv2"."""
    return nn.Sequential(OrderedDict(parts))


def convolution(c_in: int, c_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the height and width, but for its stride."""
    return nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def activated(c_in: int, c_out: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    conv = convolution(c_in, c_out, kernel=kernel, stride=stride, groups=groups)
    return named(conv=conv, bn=nn.BatchNorm2d(c_out), relu=nn.ReLU())


def kaiming(network: nn.Module) -> None:
    """Start convolutions from N(0, 2 / (c_out · kernel²)), their biases from 0 (arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def image(input_shape: tuple[int, ...], *, least: int = 1) -> tuple[int, int, int]:
    """The (C, H, W) of an image.

    Raises:
        RequestError: `input_shape` is not of that form, or its height or width is less than `least`.
    """
    if len(input_shape) != 3:
        raise RequestError(
            f"a convolutional network reads images (C, H, W), not input_shape {tuple(input_shape)}; "
            "try mlp, or reshape the data"
        )
    channels, height, width = input_shape
    if min(height, width) < least:
        raise RequestError(
            f"images of {height}×{width} are too small for this network; give {least}×{least} or larger ones"
        )
    return channels, height, width
