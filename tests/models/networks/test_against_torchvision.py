"""The networks compute what torchvision's of the same name do, given its weights in order."""

import pytest
import torch
import torchvision
from torch import nn

from limbeck.models.networks.resnet import resnet18, resnet50
from limbeck.models.networks.shufflenet import shufflenet_v2
from limbeck.models.networks.vgg import vgg13
from limbeck.taps import Taps


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Fill the target with the source's weights and running statistics, layer by layer."""
    values, own = list(source.state_dict().values()), target.state_dict()
    assert [v.shape for v in values] == [v.shape for v in own.values()]
    target.load_state_dict(dict(zip(own, values, strict=True)))


def random_statistics(model: nn.Module) -> nn.Module:
    """Move batch norms away from the identity, which would hide a wrong order of layers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.mark.parametrize(("build", "name"), [(resnet18, "resnet18"), (resnet50, "resnet50")])
def test_resnet(build, name):
    torch.manual_seed(0)
    theirs = random_statistics(torchvision.models.get_model(name, weights=None, num_classes=10))
    ours = build(input_shape=(3, 64, 64), classes=10, stem="imagenet").eval()
    copy_in_order(theirs, ours)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_vgg13_feature_maps_at_64x64():
    torch.manual_seed(0)
    theirs = random_statistics(torchvision.models.vgg13_bn(weights=None, init_weights=False).features[:-1])
    ours = vgg13(input_shape=(3, 64, 64), classes=10).eval()
    copy_in_order(theirs, nn.Sequential(*(ours.get_submodule(stage) for stage in ours.stages)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        _, tensors = Taps(ours, ours.stages).run(x)
        torch.testing.assert_close(tensors["stage5"], theirs(x))


def test_shufflenet_v2_stages():
    torch.manual_seed(0)
    theirs = random_statistics(torchvision.models.shufflenet_v2_x1_0(weights=None))
    their_stages = nn.Sequential(theirs.stage2, theirs.stage3, theirs.stage4)
    ours = shufflenet_v2(input_shape=(3, 32, 32), classes=10).eval()
    our_stages = nn.Sequential(ours.stage1, ours.stage2, ours.stage3)
    copy_in_order(their_stages, our_stages)
    x = torch.randn(2, 24, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(our_stages(x), their_stages(x))
