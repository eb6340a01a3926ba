"""Expected names are read off each library's own description of the architecture."""

import pytest
import torch
import torchvision
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.networks.cnn import cnn
from limbeck.models.networks.multi_exit import byot_small
from limbeck.models.networks.resnet_cifar import resnet8
from limbeck.models.networks.vgg import vgg8
from limbeck.models.stages import embedding, stages

TORCHVISION = {
    "resnet18": (("layer1", "layer2", "layer3", "layer4"), "fc:in"),
    "vgg11": (("features.1", "features.4", "features.9", "features.14", "features.19"), "classifier.6:in"),
    "mobilenet_v2": (
        ("features.1", "features.3", "features.6", "features.13", "features"),
        "classifier.1:in",
    ),
    "mobilenet_v3_small": (
        ("features.0", "features.1", "features.3", "features.8", "features"),
        "classifier.3:in",
    ),
    "efficientnet_b0": (
        ("features.1", "features.2", "features.3", "features.5", "features"),
        "classifier.1:in",
    ),
    "convnext_tiny": (("features.1", "features.3", "features.5", "features"), "classifier.2:in"),
    "shufflenet_v2_x0_5": (("conv1", "stage2", "stage3", "conv5"), "fc:in"),
    "densenet121": (
        (
            "features.relu0",
            "features.denseblock1",
            "features.denseblock2",
            "features.denseblock3",
            "features",
        ),
        "classifier:in",
    ),
    "regnet_y_400mf": (
        (
            "stem",
            "trunk_output.block1",
            "trunk_output.block2",
            "trunk_output.block3",
            "trunk_output",
        ),
        "fc:in",
    ),
}

TIMM = {
    "resnet18": (("layer1", "layer2", "layer3", "layer4"), "fc:in"),
    "convnext_atto": (("stages.0", "stages.1", "stages.2", "stages.3"), "head.fc:in"),
    "efficientnet_b0": (("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"), "classifier:in"),
    "vgg11_bn": (
        ("features.2", "features.6", "features.13", "features.20", "features.27"),
        "head.fc:in",
    ),
    "vit_tiny_patch16_224": (tuple(f"blocks.{n}" for n in range(12)), "head:in"),
    "deit_tiny_distilled_patch16_224": (tuple(f"blocks.{n}" for n in range(12)), "head:in"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    expected_stages, expected_embedding = TORCHVISION[name]
    with torch.device("meta" if name == "vgg11" else "cpu"):  # which is large
        model = torchvision.models.get_model(name, weights=None)
    assert stages(model) == expected_stages
    assert embedding(model) == expected_embedding


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    timm = pytest.importorskip("timm")
    expected_stages, expected_embedding = TIMM[name]
    with torch.device("meta" if name == "vgg11_bn" else "cpu"):  # which is large
        model = timm.create_model(name)
    assert stages(model) == expected_stages
    assert embedding(model) == expected_embedding


@pytest.mark.parametrize("build", [resnet8, vgg8, byot_small, cnn])
def test_our_own_say_themselves(build):
    model = build(input_shape=(3, 32, 32), classes=10)
    assert stages(model) == model.stages
    assert embedding(model) == model.embedding


def plain() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


def test_a_network_of_the_users_own():
    model = plain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert stages(model) == ("1", "5")
    assert embedding(model) == "8:in"
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_input_shape_is_used_where_the_guess_does_not_fit():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 8 * 6, 10))
    with pytest.raises(RequestError, match="give another input_shape"):
        stages(model)
    assert stages(model, input_shape=(1, 8, 6)) == ("1",)


@pytest.mark.parametrize("name", ["swin_t", "vit_b_32"])
def test_transformers_without_maps_are_refused(name):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    with pytest.raises(RequestError, match="could not be detected"):
        stages(model, input_shape=(3, 224, 224))


def test_a_perceptron_has_no_stages_but_an_embedding():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(RequestError, match="could not be detected"):
        stages(model)
    assert embedding(model) == "3:in"


def test_without_a_linear_layer_there_is_no_embedding():
    with pytest.raises(RequestError, match="no linear classifier"):
        embedding(nn.Sequential(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
