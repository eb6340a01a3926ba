import pytest
import torch

from limbeck.models.measure import parameter_count
from limbeck.models.networks.mobilenet import InvertedResidual, mobilenet_v1, mobilenet_v2
from limbeck.models.networks.resnet import resnet50
from limbeck.taps import Taps, evaluating


def test_parameters_of_v1_at_1000_classes():
    # 4.2 million in the paper; Keras's summary says 4,231,976 trainable.
    assert parameter_count(mobilenet_v1(input_shape=(3, 224, 224), classes=1000)) == 4_231_976


def test_width_divides_all_channels():
    network = mobilenet_v1(input_shape=(3, 32, 32), classes=10, width=0.25)
    assert network.classifier.in_features == 256
    assert network.stem.conv.out_channels == 8


@pytest.mark.parametrize(("stem_stride", "stem", "student_tap"), [(2, "imagenet", "5.0"), (1, "small", "4.5")])
def test_the_pair_of_tensors_that_paddleslim_compares_has_one_shape(stem_stride, stem, student_tap):
    shape = (3, 32, 32)
    student = mobilenet_v1(input_shape=shape, classes=10, stem_stride=stem_stride)
    with torch.device("meta"):
        teacher = resnet50(input_shape=shape, classes=10, stem=stem)
    stage, block = student_tap.split(".")
    depthwise = f"stage{stage}.{block}.depthwise.conv"
    with evaluating(student), evaluating(teacher), torch.no_grad():
        _, ours = Taps(student, [depthwise]).run(torch.randn(1, *shape))
        _, theirs = Taps(teacher, ["stage4.2.branch.bn2"]).run(torch.zeros(1, *shape, device="meta"))
    assert ours[depthwise].shape == theirs["stage4.2.branch.bn2"].shape
    assert ours[depthwise].shape[1] == 512


def test_blocks_of_v2_that_keep_the_shape_are_residual():
    network = mobilenet_v2(input_shape=(3, 32, 32), classes=10)
    blocks = [m for m in network.modules() if isinstance(m, InvertedResidual)]
    # Groups of 1, 2, 3, 4, 3, 3, 1 blocks, the first of each without a shortcut.
    assert [block.residual for block in blocks] == [k > 0 for n in (1, 2, 3, 4, 3, 3, 1) for k in range(n)]
    block = blocks[2].eval()
    x = torch.randn(1, 12, 4, 4)
    torch.testing.assert_close(block(x), x + block.branch(x))
