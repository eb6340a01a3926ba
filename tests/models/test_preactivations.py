"""What a stage is before the ReLU that it ends in, by execution order: expected taps are read off each forward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models.build import build
from limbeck.models.preactivations import preactivations
from limbeck.models.stages import stages
from limbeck.taps import Taps, evaluating

SHAPE = (3, 32, 32)
EXPECTED = {
    # The ReLU of a block is registered before conv2, and runs twice; the sum is made in place on bn2's output.
    "torchvision:resnet18": ["layer1.1.add", "layer2.1.add", "layer3.1.add", "layer4.1.add"],
    "torchvision:resnet34": ["layer1.2.add", "layer2.3.add", "layer3.5.add", "layer4.2.add"],
    "torchvision:vgg11": [f"features.{number}:in" for number in (1, 4, 9, 14, 19)],
    # Batch norms of residual branches that begin at 0, so that a block gives what it gets.
    "timm:resnet18": [f"layer{number}.1.act2:in" for number in (1, 2, 3, 4)],
    # Inverted residuals are linear; the head ends in ReLU6.
    "torchvision:mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features.18.2:in"],
    "resnet8x4": [f"stage{number}.0.relu:in" for number in (1, 2, 3)],
    "wrn_16_2": [f"stage{number}.relu:in" for number in (1, 2, 3)],
    "vgg8": ["stage1.2:in", "stage2.3:in", "stage3.3:in", "stage4.3:in", "stage5.2:in"],
    "cnn": ["stage1.2:in", "stage2.2:in"],
}
NORMS = {
    "torchvision:resnet34": ["layer1.2.bn2", "layer2.3.bn2", "layer3.5.bn2", "layer4.2.bn2"],
    "resnet8x4": [f"stage{number}.0.branch.bn2" for number in (1, 2, 3)],  # not the shortcut's, which runs later
    "wrn_16_2": ["stage1.bn", "stage2.bn", "stage3.bn"],
    "torchvision:vgg11": [None] * 5,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_taps_and_norms(name: str) -> None:
    model = build(name, input_shape=SHAPE, classes=10).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    paths = stages(model, input_shape=SHAPE)
    found = preactivations(model, paths, SHAPE)
    assert [one.tap for one in found] == EXPECTED[name]
    if name in NORMS:
        assert [one.norm for one in found] == NORMS[name]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v2", "vgg8"])
def test_the_rectified_tensor_is_the_stages_output(name: str) -> None:
    model = build(name, input_shape=SHAPE, classes=10)
    paths = stages(model, input_shape=SHAPE)
    taps = [one.tap for one in preactivations(model, paths, SHAPE)]
    with evaluating(model), torch.no_grad():
        _, tensors = Taps(model, [*paths, *taps]).run(torch.randn(2, *SHAPE))
    for path, tap in zip(paths, taps, strict=True):
        assert tap == path or (
            tensors[tap].min() < 0 and torch.equal(tensors[tap].clamp(0, 6), tensors[path].clamp(0, 6))
        )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x), inplace=True)
        return F.relu6(self.norm(x) - 1)


def test_functions_are_found_too() -> None:
    model = nn.Sequential(Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    (found,) = preactivations(model, ["0"], (3, 8, 8))
    assert (found.tap, found.norm) == ("0.sub", "0.norm")
