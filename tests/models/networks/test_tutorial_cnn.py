import pytest
import torch

from limbeck.models.measure import parameter_count
from limbeck.models.networks.tutorial_cnn import tutorial_student, tutorial_teacher
from limbeck.taps import Taps, evaluating

CIFAR_10 = {"input_shape": (3, 32, 32), "classes": 10}


def test_published_parameter_counts():
    assert parameter_count(tutorial_teacher(**CIFAR_10)) == 1_186_986
    assert parameter_count(tutorial_student(**CIFAR_10)) == 267_738


def test_seed_42_gives_the_start_that_the_tutorial_prints():
    torch.manual_seed(42)
    norm = tutorial_student(**CIFAR_10).features[0].weight.norm().item()
    assert norm == pytest.approx(2.327361822128296, rel=1e-6)


@pytest.mark.parametrize(
    ("build", "kinds"),
    [
        (tutorial_teacher, "Conv2d ReLU Conv2d ReLU MaxPool2d Conv2d ReLU Conv2d ReLU MaxPool2d"),
        (tutorial_student, "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d"),
    ],
)
def test_order_of_layers(build, kinds):
    network = build(**CIFAR_10)
    assert " ".join(type(layer).__name__ for layer in network.features) == kinds
    assert [type(layer).__name__ for layer in network.classifier] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert network.classifier[2].p == 0.1


@pytest.mark.parametrize(("build", "channels"), [(tutorial_teacher, 32), (tutorial_student, 16)])
def test_the_tensors_that_the_tutorial_compares(build, channels):
    network = build(**CIFAR_10)
    names = ["features", "flatten", network.embedding, *network.stages]
    with evaluating(network):
        _, tensors = Taps(network, names).run(torch.randn(2, 3, 32, 32))
    assert tensors["features"].shape == (2, channels, 8, 8)
    assert tensors["flatten"].shape == (2, channels * 64)
    assert torch.equal(tensors[network.embedding], tensors["flatten"])
    assert [tensors[stage].shape[2] for stage in network.stages] == [32, 16]
