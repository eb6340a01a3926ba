import pytest
import torch
import torch.nn.functional as F

from limbeck.models.measure import parameter_count
from limbeck.models.networks.wide_resnet import wrn_16_1, wrn_16_2


def paper_form(network, x):
    """The network as the paper writes it: every block begins with its own batch norm and ReLU."""
    norms = [network.stem[1] if len(network.stem) > 1 else None]
    x = network.stem[0](x)
    for stage in (network.stage1, network.stage2, network.stage3):
        for block in stage.blocks:
            widens = isinstance(block.shortcut, torch.nn.Conv2d)
            layers = list(block.branch)
            norm1 = norms[-1] if widens else layers.pop(0)
            conv1, norm2, conv2 = (layer for layer in layers if not isinstance(layer, torch.nn.ReLU))
            activated = F.relu(norm1(x))
            residual = conv2(F.relu(norm2(conv1(activated))))
            x = residual + (block.shortcut(activated) if widens else x)
        norms.append(stage.bn)
    x = F.relu(norms[-1](x)).mean(dim=(2, 3))
    return network.classifier(x)


@pytest.mark.parametrize("build", [wrn_16_1, wrn_16_2])
def test_stages_that_end_activated_compute_the_papers_network(build):
    torch.manual_seed(0)
    network = build(input_shape=(3, 16, 16), classes=10)
    x = torch.randn(4, 3, 16, 16)
    network(x)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), paper_form(network, x))


def test_size_of_the_narrowest_by_hand():
    # Two blocks a stage; each widening stage has one block whose first norm has the narrower width.
    size = 27 * 16 + 2 * (2 * 9 * 16 * 16 + 4 * 16)
    for narrow, wide in ((16, 32), (32, 64)):
        size += 9 * narrow * wide + 9 * wide * wide + narrow * wide + 2 * narrow + 2 * wide
        size += 2 * 9 * wide * wide + 4 * wide
    size += 2 * 64 + 65 * 100
    assert parameter_count(wrn_16_1(input_shape=(3, 32, 32), classes=100)) == size
