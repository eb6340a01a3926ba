"""Where the methods of papers compare two networks, and with what constants."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from limbeck.models.cnn import cnn
from limbeck.models.resnet_cifar import resnet8, resnet14
from limbeck.recipes.methods import METHODS, Places
from limbeck.taps import Taps

SHAPE = (3, 32, 32)


def places(student: nn.Module, teacher: nn.Module) -> Places:
    return Places(student, teacher, SHAPE, 100)


def test_stages_are_tapped_before_the_relu_that_ends_them():
    pair = places(cnn(input_shape=SHAPE, classes=10), resnet14(input_shape=SHAPE, classes=10))
    assert pair.before_relu() == [
        {"student": "stage1.2:in", "teacher": "stage2.1.relu:in"},
        {"student": "stage2.2:in", "teacher": "stage3.1.relu:in"},
    ]
    taps = [at["teacher"] for at in pair.before_relu()]
    _, before = Taps(pair.teacher, taps).run(torch.randn(2, *SHAPE))
    _, after = Taps(pair.teacher, ["stage2", "stage3"]).run(torch.randn(2, *SHAPE))
    assert all(before[tap].min() < 0 for tap in taps)
    assert [t.shape for t in before.values()][:2] == [after["stage2"].shape, after["stage3"].shape]


def test_stages_that_end_in_something_else_are_tapped_behind_it():
    student, teacher = resnet8(input_shape=SHAPE, classes=10), torchvision.models.resnet18(num_classes=10)
    assert [at["teacher"] for at in places(student, teacher).before_relu()] == ["layer2", "layer3", "layer4"]


def test_weights_of_published_sums_are_rescaled_to_means_over_the_last_map():
    """The authors' factors (3/1000, 1/1000, 7e-5 of the sum) of a narrow ResNet's last map, 64·8·8 elements."""
    pair = places(resnet8(input_shape=SHAPE, classes=10), resnet14(input_shape=SHAPE, classes=10))
    for name, factor in (("ab", 3e-3), ("ofd", 1e-3), ("mgd", 7e-5)):
        for term in METHODS[name].terms(pair):
            assert abs(term["weight"] / (factor * 64 * 8 * 8) - 1) < 0.05
