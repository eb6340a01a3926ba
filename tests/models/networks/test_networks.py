"""What holds for every network: published sizes, any image, stages and embedding that can be tapped."""

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.measure import parameter_count
from limbeck.models.networks import mobilenet, resnet, resnet_cifar, shufflenet, vgg, wide_resnet
from limbeck.models.networks.keras_cnn import keras_cnn
from limbeck.models.networks.tutorial_cnn import tutorial_student, tutorial_teacher
from limbeck.taps import Taps, evaluating

# Exact counts at 100 classes of the models behind the tables of arXiv 1910.10699.
CIFAR_100 = {
    resnet_cifar.resnet20: 278_324,
    resnet_cifar.resnet32: 472_756,
    resnet_cifar.resnet56: 861_620,
    resnet_cifar.resnet110: 1_736_564,
    resnet_cifar.resnet8x4: 1_233_540,
    resnet_cifar.resnet32x4: 7_433_860,
    wide_resnet.wrn_16_2: 703_284,
    wide_resnet.wrn_40_1: 569_780,
    wide_resnet.wrn_40_2: 2_255_156,
    vgg.vgg8: 3_965_028,
    vgg.vgg13: 9_462_180,
    mobilenet.mobilenet_v2: 812_836,
    shufflenet.shufflenet_v1: 949_258,
    shufflenet.shufflenet_v2: 1_355_528,
}

# Torchvision's counts at 1,000 classes.
IMAGENET = {
    resnet.resnet18: 11_689_512,
    resnet.resnet34: 21_797_672,
    resnet.resnet50: 25_557_032,
    resnet.resnet101: 44_549_160,
    resnet.resnet152: 60_192_808,
}

SMALL = [
    keras_cnn,
    tutorial_student,
    tutorial_teacher,
    resnet_cifar.resnet8,
    resnet_cifar.resnet14,
    resnet_cifar.resnet44,
    wide_resnet.wrn_16_1,
    wide_resnet.wrn_16_2,
    vgg.vgg8,
    mobilenet.mobilenet_v1,
    mobilenet.mobilenet_v2,
    shufflenet.shufflenet_v1,
    shufflenet.shufflenet_v2,
    resnet.resnet18,
    resnet.resnet50,
]


def name(value):
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("build", "count"), CIFAR_100.items(), ids=name)
def test_size_on_cifar_100_is_the_published_one(build, count):
    with torch.device("meta"):
        network = build(input_shape=(3, 32, 32), classes=100)
    assert parameter_count(network) == count


@pytest.mark.parametrize(("build", "count"), IMAGENET.items(), ids=name)
def test_size_of_the_imagenet_resnets_is_torchvisions(build, count):
    with torch.device("meta"):
        network = build(input_shape=(3, 224, 224), classes=1000, stem="imagenet")
    assert parameter_count(network) == count


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_size_of_a_narrow_resnet_by_hand(depth):
    blocks = (depth - 2) // 6
    weights = 27 * 16 + 2 * 16 + 65 * 10
    for c_in, c in ((16, 16), (16, 32), (32, 64)):
        weights += 9 * c_in * c + 9 * c * c + 4 * c
        weights += (blocks - 1) * (18 * c * c + 4 * c)
        weights += c_in * c + 2 * c if c_in != c else 0
    with torch.device("meta"):
        network = getattr(resnet_cifar, f"resnet{depth}")(input_shape=(3, 32, 32), classes=10)
    assert parameter_count(network) == weights


def test_the_small_stem_saves_the_difference_of_a_3x3_and_a_7x7_kernel():
    with torch.device("meta"):
        network = resnet.resnet18(input_shape=(3, 32, 32), classes=1000)
    assert parameter_count(network) == IMAGENET[resnet.resnet18] - 3 * 64 * (49 - 9)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 40, 24)], ids=str)
@pytest.mark.parametrize("build", SMALL, ids=name)
def test_any_image_gives_logits_and_the_named_tensors(build, shape):
    with torch.device("meta"):
        network, images = build(input_shape=shape, classes=7), torch.randn(2, *shape)
    with evaluating(network), torch.no_grad():
        logits, tensors = Taps(network, [*network.stages, network.embedding]).run(images)
    assert logits.shape == (2, 7)
    maps = [tensors[stage] for stage in network.stages]
    assert len(maps) >= 2
    assert all(m.ndim == 4 for m in maps)
    heights = [m.shape[2] for m in maps]
    assert heights == sorted(heights, reverse=True)
    assert tensors[network.embedding].ndim == 2


@pytest.mark.parametrize("build", [b for b in SMALL if b not in (keras_cnn, mobilenet.mobilenet_v2)], ids=name)
def test_a_stage_ends_after_its_relu(build):
    network = build(input_shape=(3, 16, 16), classes=5)
    with torch.no_grad():
        _, tensors = Taps(network, network.stages).run(torch.randn(2, 3, 16, 16))
    for stage in network.stages:
        assert tensors[stage].min() == 0, stage


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (resnet_cifar.resnet8x4, [(64, 32), (128, 16), (256, 8)]),
        (wide_resnet.wrn_40_2, [(32, 32), (64, 16), (128, 8)]),
        (vgg.vgg13, [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)]),
        (mobilenet.mobilenet_v1, [(64, 16), (128, 8), (256, 4), (512, 2), (1024, 1)]),
        (mobilenet.mobilenet_v2, [(12, 16), (16, 8), (48, 4), (160, 2)]),
        (shufflenet.shufflenet_v1, [(240, 16), (480, 8), (960, 4)]),
        (shufflenet.shufflenet_v2, [(116, 16), (232, 8), (464, 4)]),
        (resnet.resnet50, [(256, 32), (512, 16), (1024, 8), (2048, 4)]),
    ],
    ids=name,
)
def test_stage_shapes_on_32x32(build, expected):
    with torch.device("meta"):
        network, images = build(input_shape=(3, 32, 32), classes=10), torch.randn(1, 3, 32, 32)
    with evaluating(network), torch.no_grad():
        _, tensors = Taps(network, network.stages).run(images)
    assert [tuple(tensors[stage].shape[1:3]) for stage in network.stages] == expected


@pytest.mark.parametrize("build", SMALL, ids=name)
def test_all_weights_are_trained(build):
    network = build(input_shape=(3, 16, 16), classes=5)
    network(torch.randn(4, 3, 16, 16)).logsumexp(1).sum().backward()
    assert [path for path, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("build", SMALL, ids=name)
def test_what_is_no_image_is_refused(build):
    with pytest.raises(RequestError, match=r"images \(C, H, W\), not input_shape \(784,\)"):
        build(input_shape=(784,), classes=10)


def test_an_image_too_small_to_be_pooled_is_refused():
    with pytest.raises(RequestError, match="7×9 are too small"):
        vgg.vgg8(input_shape=(3, 7, 9), classes=10)


def test_an_unknown_stem_is_refused():
    with pytest.raises(RequestError, match="imagenet"):
        resnet.resnet18(input_shape=(3, 32, 32), classes=10, stem="imagnet")


def test_convolutions_start_with_the_kaiming_deviation():
    torch.manual_seed(0)
    network = resnet.resnet18(input_shape=(3, 32, 32), classes=10)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.out_channels == 512]
    for weight in weights:
        fan_out = 512 * weight.shape[2] * weight.shape[3]
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
