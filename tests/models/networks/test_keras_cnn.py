import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.measure import parameter_count
from limbeck.models.networks.keras_cnn import SamePad2d, keras_cnn

MNIST = {"input_shape": (1, 28, 28), "classes": 10}


def test_parameters_of_teacher_and_student_by_hand():
    teacher = (9 + 1) * 256 + (9 * 256 + 1) * 512 + (7 * 7 * 512 + 1) * 10
    student = (9 + 1) * 16 + (9 * 16 + 1) * 32 + (7 * 7 * 32 + 1) * 10
    assert parameter_count(keras_cnn(**MNIST)) == teacher == 1_433_610
    assert parameter_count(keras_cnn(**MNIST, channels=(16, 32))) == student == 20_490


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    # Worked out on paper from Keras's rule.
    [
        (28, 3, 2, 0, 1),
        (14, 3, 2, 0, 1),
        (7, 3, 2, 1, 1),
        (14, 2, 1, 0, 1),
        (5, 3, 1, 1, 1),
        (5, 1, 2, 0, 0),
        (6, 5, 2, 1, 2),
    ],
)
def test_same_padding(size, kernel, stride, before, after):
    x = torch.arange(1.0, 1 + size * size).reshape(1, 1, size, size)
    expected = F.pad(x, (before, after, before, after))
    assert torch.equal(SamePad2d(kernel, stride)(x), expected)


def test_height_and_width_are_padded_each_by_its_own():
    assert SamePad2d(3, 2)(torch.zeros(1, 1, 28, 7)).shape == (1, 1, 29, 9)


def test_the_network_is_padding_and_valid_convolutions():
    torch.manual_seed(0)
    network = keras_cnn(**MNIST, channels=(4, 6))
    x = torch.randn(3, 1, 28, 28)
    first, second = network.stage1.conv, network.stage2.conv
    y = F.leaky_relu(F.conv2d(F.pad(x, (0, 1, 0, 1)), first.weight, first.bias, stride=2), 0.2)
    y = F.max_pool2d(F.pad(y, (0, 1, 0, 1), value=-math.inf), 2, stride=1)
    y = F.conv2d(F.pad(y, (0, 1, 0, 1)), second.weight, second.bias, stride=2)
    expected = F.linear(y.flatten(1), network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(network(x), expected)


def test_padding_never_wins_the_pooling():
    pool = keras_cnn(**MNIST).pool
    assert torch.equal(pool(torch.full((1, 1, 3, 3), -2.0)), torch.full((1, 1, 3, 3), -2.0))


def test_glorot_uniform_start_and_zero_biases():
    network = keras_cnn(**MNIST)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            positions = math.prod(module.weight.shape[2:])
            bound = math.sqrt(6 / ((module.weight.shape[0] + module.weight.shape[1]) * positions))
            assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert module.weight.abs().max() <= bound
            assert not module.bias.any()


def test_other_than_two_channels_are_refused():
    with pytest.raises(RequestError, match="two convolutions"):
        keras_cnn(**MNIST, channels=(16, 32, 64))
