"""Networks with an exit behind every stage, for distillation inside one network.

    x ─▶ stem ─▶ stage 1 ─▶ stage 2 ─▶ stage 3 ─▶ stage 4
                    ▼          ▼          ▼          ▼
                 attention  attention  attention     │
                 3 × scala  2 × scala  1 × scala     │
                    ▼          ▼          ▼          ▼
                 average    average    average    average    ─▶ features
                 linear     linear     linear     linear     ─▶ logits

Exits are counted from the shallowest, 1, to the deepest; `Exits` holds the deepest first.

Source: Zhang et al., "Be Your Own Teacher", arXiv 1905.08094; attention as in the journal version,
"Self-Distillation: Towards Efficient and Compact Neural Networks", TPAMI 2021.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.networks.residual import Branch, basic, bottleneck, residual_stage
from limbeck.models.networks.staged import Staged, activated, convolution, image, kaiming, named
from limbeck.options import Width

WIDTHS = (64, 128, 256, 512)


class Exits(NamedTuple):
    """What a multi-exit network returns for a batch, deepest exit first.

    Attributes:
        logits: A (B, classes) tensor an exit.
        features: The (B, D) vector behind each exit's logits.
    """

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


class EarlyExits(NamedTuple):
    """What `early_exit` returns.

    Attributes:
        logits: (B, classes), each row from the exit at which its sample stopped.
        exit_used: (B,) int64 number of that exit, 1 for the shallowest.
    """

    logits: Tensor
    exit_used: Tensor


class MultiExit(nn.Module):
    """A trunk of stages with a branch and a classifier behind each.

    Args:
        stem: From the image to the first stage's input.
        trunk: The stages, first to last.
        branches: For each stage, from its feature map to a vector (B, D).
        classifiers: For each stage, from that vector to logits.

    Attributes:
        stages: Paths of the stages, first to last.
        embedding: Tap of the vector that the deepest classifier reads.
    """

    def __init__(
        self,
        stem: nn.Module,
        trunk: Iterable[nn.Module],
        branches: Iterable[nn.Module],
        classifiers: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.trunk = nn.ModuleList(trunk)
        self.branches = nn.ModuleList(branches)
        self.classifiers = nn.ModuleList(classifiers)
        self.stages: tuple[str, ...] = tuple(f"trunk.{index}" for index in range(len(self.trunk)))
        self.embedding = f"classifiers.{len(self.trunk) - 1}:in"

    def forward(self, x: Tensor) -> Exits:
        logits: list[Tensor] = []
        features: list[Tensor] = []
        x = self.stem(x)
        for stage, branch, classifier in zip(self.trunk, self.branches, self.classifiers, strict=True):
            x = stage(x)
            features.append(branch(x))
            logits.append(classifier(features[-1]))
        return Exits(tuple(reversed(logits)), tuple(reversed(features)))


def exit_network(model: MultiExit, exit: int) -> Staged:
    """One exit as a plain network of its own: stem, stages up to it, its branch, its classifier, all copied.

    Args:
        model: The multi-exit network.
        exit: Number of the exit, 1 for the shallowest.

    Returns:
        A chain from (B, C, H, W) to that exit's logits (B, classes).

    Raises:
        RequestError: There is no such exit.
    """
    _check_exit(model, exit)
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=model.stem)
    for number, stage in enumerate(model.trunk[:exit], start=1):
        parts[f"stage{number}"] = stage
    parts["branch"] = model.branches[exit - 1]
    parts["classifier"] = model.classifiers[exit - 1]
    return copy.deepcopy(Staged(parts)).train(model.training)


def first_exits(model: MultiExit, count: int) -> MultiExit:
    """A copy of a multi-exit network that ends after its first `count` exits.

    Its multiply-adds are what `early_exit` spends on a sample that stops at exit `count`.

    Args:
        model: The multi-exit network.
        count: Number of exits to keep, shallowest first.

    Raises:
        RequestError: There are not so many.
    """
    _check_exit(model, count)
    shorter = MultiExit(model.stem, model.trunk[:count], model.branches[:count], model.classifiers[:count])
    return copy.deepcopy(shorter).train(model.training)


@torch.no_grad()
def early_exit(model: MultiExit, x: Tensor, threshold: float) -> EarlyExits:
    """Run each sample only as deep as it needs: to the first exit whose confidence reaches the threshold.

    The confidence is the largest softmax probability. Those samples that go on form a smaller batch for the
    next stage; the deepest exit takes all that come to it.

    Args:
        model: A multi-exit network in eval mode.
        x: (B, C, H, W) images.
        threshold: Least confidence to stop at; 0 stops all at exit 1, a number above 1 none before the last.

    Raises:
        RequestError: The model is in training mode, where a sample's logits depend on its batch.
    """
    if model.training:
        raise RequestError("early exit needs a model in eval mode; call model.eval() first")
    waiting = torch.arange(len(x), device=x.device)
    exit_used = torch.zeros_like(waiting)
    logits = x.new_empty(0)
    x = model.stem(x)
    exits = zip(model.trunk, model.branches, model.classifiers, strict=True)
    for number, (stage, branch, classifier) in enumerate(exits, start=1):
        x = stage(x)
        here = classifier(branch(x))
        if number == 1:
            logits = torch.empty_like(here)
        # Samples that go on leave a row here that a deeper exit overwrites.
        logits[waiting], exit_used[waiting] = here, number
        unsure = here.float().softmax(dim=1).amax(dim=1) < threshold
        x, waiting = x[unsure], waiting[unsure]
        if not len(waiting):
            break
    return EarlyExits(logits, exit_used)


def byot_resnet18(*, input_shape: tuple[int, ...], classes: int) -> MultiExit:
    """The self-distilling ResNet-18 with four exits, for images of any size.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits of each exit.

    Returns:
        A module from (B, C, H, W) to `Exits`, with features of 512 numbers (2,048 for ResNet-50 and deeper).

    Raises:
        RequestError: `input_shape` is no image.

    Source: arXiv 1905.08094.
    """
    return _byot(basic, WIDTHS, (2, 2, 2, 2), input_shape, classes)


def byot_resnet34(*, input_shape: tuple[int, ...], classes: int) -> MultiExit:
    """The self-distilling ResNet-34; see `byot_resnet18`."""
    return _byot(basic, WIDTHS, (3, 4, 6, 3), input_shape, classes)


def byot_resnet50(*, input_shape: tuple[int, ...], classes: int) -> MultiExit:
    """The self-distilling ResNet-50; see `byot_resnet18`."""
    return _byot(bottleneck, WIDTHS, (3, 4, 6, 3), input_shape, classes, expansion=4)


def byot_resnet101(*, input_shape: tuple[int, ...], classes: int) -> MultiExit:
    """The self-distilling ResNet-101; see `byot_resnet18`."""
    return _byot(bottleneck, WIDTHS, (3, 4, 23, 3), input_shape, classes, expansion=4)


def byot_resnet152(*, input_shape: tuple[int, ...], classes: int) -> MultiExit:
    """The self-distilling ResNet-152; see `byot_resnet18`."""
    return _byot(bottleneck, WIDTHS, (3, 8, 36, 3), input_shape, classes, expansion=4)


def byot_small(
    *, input_shape: tuple[int, ...], classes: int, widths: Sequence[Width] = (16, 32, 64), depth: Width = 1
) -> MultiExit:
    """A self-distilling ResNet narrow enough for a CPU: an exit a width, `depth` basic blocks a stage.

    Args:
        input_shape: (C, H, W) of one sample.
        classes: Number of logits of each exit.
        widths: Channels of each stage; the stem has those of the first.
        depth: Blocks a stage.

    Returns:
        A module from (B, C, H, W) to `Exits`, with features of widths[-1] numbers.

    Raises:
        RequestError: `input_shape` is no image, or `widths` has fewer than two numbers.
    """
    if len(widths) < 2:
        raise RequestError(f"self-distillation needs two stages or more; widths {tuple(widths)} make fewer")
    return _byot(basic, widths, (depth,) * len(widths), input_shape, classes)


class Attention(nn.Module):
    """x · sigmoid(mask(x)) on maps (B, c, H, W), the mask made at half the size and interpolated back."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.mask = named(separable=separable(c, c), bn=nn.BatchNorm2d(c), relu=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        mask = F.interpolate(self.mask(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        return x * mask.sigmoid()


def separable(c_in: int, c_out: int) -> nn.Sequential:
    """Two depthwise separable convolutions, from (B, c_in, H, W) to (B, c_out, ⌈H/2⌉, ⌈W/2⌉)."""
    return named(
        depthwise1=convolution(c_in, c_in, kernel=3, stride=2, groups=c_in),
        pointwise1=activated(c_in, c_in, kernel=1),
        depthwise2=convolution(c_in, c_in, kernel=3, groups=c_in),
        pointwise2=activated(c_in, c_out, kernel=1),
    )


def _byot(
    branch: Branch,
    widths: Sequence[int],
    depths: tuple[int, ...],
    input_shape: tuple[int, ...],
    classes: int,
    expansion: int = 1,
) -> MultiExit:
    channels, _, _ = image(input_shape)
    outputs = [width * expansion for width in widths]
    inputs = [widths[0], *outputs]
    strides = [1] + [2] * (len(widths) - 1)
    trunk = [
        residual_stage(branch, c_in, c_out, depth=depth, stride=stride)
        for c_in, c_out, depth, stride in zip(inputs, outputs, depths, strides, strict=False)
    ]
    branches = [_exit_branch(outputs[index:]) for index in range(len(outputs))]
    classifiers = [nn.Linear(outputs[-1], classes) for _ in outputs]
    network = MultiExit(activated(channels, widths[0], kernel=3), trunk, branches, classifiers)
    kaiming(network)
    return network


def _exit_branch(widths: Sequence[int]) -> nn.Sequential:
    """From a stage's map to a vector of widths[-1], through a separable convolution for each later stage."""
    branch = nn.Sequential()
    if len(widths) > 1:
        branch.add_module("attention", Attention(widths[0]))
        scala = [separable(c_in, c_out) for c_in, c_out in itertools.pairwise(widths)]
        branch.add_module("scala", nn.Sequential(*scala))
    branch.add_module("pool", nn.AdaptiveAvgPool2d(1))
    branch.add_module("flatten", nn.Flatten())
    return branch


def _check_exit(model: MultiExit, exit: int) -> None:
    last = len(model.trunk)
    if not 1 <= exit <= last:
        raise RequestError(f"there is no exit {exit}; exits are 1 (shallowest) to {last} (deepest)")
