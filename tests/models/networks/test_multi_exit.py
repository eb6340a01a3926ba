import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.measure import multiply_adds, parameter_count
from limbeck.models.networks.multi_exit import (
    Exits,
    byot_resnet18,
    byot_resnet34,
    byot_resnet50,
    byot_resnet101,
    byot_resnet152,
    byot_small,
    early_exit,
    exit_network,
    first_exits,
)
from limbeck.models.networks.resnet import resnet18


def separable(c_in, c_out):
    """Weights of one SepConv: depthwise, pointwise, norm, depthwise, pointwise, norm."""
    return 9 * c_in + c_in**2 + 2 * c_in + 9 * c_in + c_in * c_out + 2 * c_out


def exits_beside(widths, classes):
    """Weights of attention, scala branches and classifiers, added up from the paper's description."""
    size = len(widths) * (widths[-1] * classes + classes)
    for stage, width in enumerate(widths[:-1]):
        size += separable(width, width) + 2 * width
        size += sum(separable(a, b) for a, b in zip(widths[stage:], widths[stage + 1 :], strict=False))
    return size


# Convolutions and norms of torchvision's ResNets, less the 3 · 64 · (49 − 9) weights of the smaller stem.
TRUNKS = {
    byot_resnet18: (11_689_512 - 513 * 1000 - 7680, 1),
    byot_resnet34: (21_797_672 - 513 * 1000 - 7680, 1),
    byot_resnet50: (25_557_032 - 2049 * 1000 - 7680, 4),
    byot_resnet101: (44_549_160 - 2049 * 1000 - 7680, 4),
    byot_resnet152: (60_192_808 - 2049 * 1000 - 7680, 4),
}


@pytest.mark.parametrize("build", TRUNKS, ids=lambda build: build.__name__)
def test_size_is_trunk_and_exits(build):
    trunk, expansion = TRUNKS[build]
    widths = [width * expansion for width in (64, 128, 256, 512)]
    with torch.device("meta"):
        network = build(input_shape=(3, 32, 32), classes=100)
    assert parameter_count(network) == trunk + exits_beside(widths, 100)


@pytest.fixture(scope="module")
def settled():
    """A small network whose batch norms have seen data, in eval mode."""
    torch.manual_seed(0)
    network = byot_small(input_shape=(3, 16, 16), classes=10, widths=(8, 16, 32, 64))
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, 3, 16, 16))
    return network.eval()


@pytest.fixture
def small(settled):
    torch.manual_seed(1)
    return copy.deepcopy(settled)


def test_four_exits_deepest_first(small):
    output = small(torch.randn(5, 3, 16, 16))
    assert isinstance(output, Exits)
    assert [tuple(z.shape) for z in output.logits] == [(5, 10)] * 4
    assert [tuple(f.shape) for f in output.features] == [(5, 64)] * 4
    torch.testing.assert_close(small.classifiers[3](output.features[0]), output.logits[0])
    torch.testing.assert_close(small.classifiers[0](output.features[3]), output.logits[3])


def test_the_deepest_exit_is_a_plain_resnet():
    torch.manual_seed(0)
    network = byot_resnet18(input_shape=(3, 32, 32), classes=10).eval()
    plain = resnet18(input_shape=(3, 32, 32), classes=10).eval()
    weights = exit_network(network, 4).state_dict()
    plain.load_state_dict(weights)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x).logits[0], plain(x))


def test_attention_multiplies_the_map_by_an_upsampled_mask(small):
    attention = small.branches[0].attention
    x = torch.rand(2, 8, 6, 6)
    mask = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(attention.mask(x)).sigmoid()
    torch.testing.assert_close(attention(x), x * mask)


def test_attention_precedes_every_exit_but_the_deepest(small):
    assert [hasattr(branch, "attention") for branch in small.branches] == [True, True, True, False]
    assert [len(branch.scala) for branch in small.branches[:3]] == [3, 2, 1]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 33, 27)], ids=str)
def test_any_size_forward_and_backward(shape):
    network = byot_small(input_shape=shape, classes=10, widths=(4, 8, 16, 32))
    output = network(torch.randn(4, *shape))
    sum(z.logsumexp(1).sum() for z in output.logits).backward()
    assert [path for path, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("size", "last"), [(32, 4), (96, 12)])
def test_resnet18_forward_and_backward(size, last):
    network = byot_resnet18(input_shape=(3, size, size), classes=10)
    maps = []
    network.trunk[3].register_forward_hook(lambda module, args, output: maps.append(output.shape))
    # Two samples: the norms of the small one's branches see four positions each.
    output = network(torch.randn(1 if size > 32 else 2, 3, size, size))
    sum(z.logsumexp(1).sum() for z in output.logits).backward()
    assert maps[0][1:] == (512, last, last)
    assert all(f.shape[1] == 512 for f in output.features)
    assert network.stem.conv.weight.grad.isfinite().all()


def test_stages_and_embedding_are_modules(small):
    assert small.stages == ("trunk.0", "trunk.1", "trunk.2", "trunk.3")
    assert small.embedding == "classifiers.3:in"
    assert isinstance(small.get_submodule("classifiers.3"), nn.Linear)


@pytest.mark.parametrize("exit", [1, 2, 3, 4])
def test_an_exit_alone_gives_the_same_logits(small, exit):
    x = torch.randn(5, 3, 16, 16)
    alone = exit_network(small, exit)
    with torch.no_grad():
        assert torch.equal(alone(x), small(x).logits[4 - exit])
    assert alone.stages == tuple(f"stage{number}" for number in range(1, exit + 1))
    for path in (*alone.stages, alone.embedding.removesuffix(":in")):
        alone.get_submodule(path)
    assert not any(module.training for module in alone.modules())


def test_an_exit_alone_is_smaller_and_a_copy(small):
    sizes = [parameter_count(exit_network(small, exit)) for exit in (1, 2, 3, 4)]
    assert max(sizes) < parameter_count(small)
    assert sizes[0] < sizes[3]
    alone = exit_network(small, 1)
    before = small.stem.conv.weight.clone()
    nn.init.zeros_(alone.stem.conv.weight)
    assert torch.equal(small.stem.conv.weight, before)


def test_first_exits_are_those_of_the_whole(small):
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        whole, shorter = small(x), first_exits(small, 2)(x)
    assert len(shorter.logits) == 2
    assert torch.equal(shorter.logits[0], whole.logits[2])
    assert torch.equal(shorter.logits[1], whole.logits[3])


def test_going_deeper_costs_more(small):
    x = torch.randn(1, 3, 16, 16)
    costs = [multiply_adds(first_exits(small, count), x) for count in (1, 2, 3, 4)]
    assert costs == sorted(set(costs))
    assert costs[0] == multiply_adds(exit_network(small, 1), x)
    assert costs[3] == multiply_adds(small, x)


@pytest.mark.parametrize("exit", [0, 5, -1])
def test_an_exit_that_is_not_there_is_refused(small, exit):
    with pytest.raises(RequestError, match=r"exits are 1 \(shallowest\) to 4"):
        exit_network(small, exit)
    with pytest.raises(RequestError, match=f"no exit {exit}"):
        first_exits(small, exit)


def first_confident(output, threshold):
    """For each sample, by a plain loop over full outputs: the exit where it stops, and the logits there."""
    used, logits = [], []
    shallow_first = output.logits[::-1]
    for sample in range(len(shallow_first[0])):
        for number, exit_logits in enumerate(shallow_first, start=1):
            confidence = exit_logits[sample].softmax(0).max()
            if confidence >= threshold or number == len(shallow_first):
                used.append(number)
                logits.append(exit_logits[sample])
                break
    return torch.stack(logits), torch.tensor(used)


def test_early_exit_stops_each_sample_where_it_is_sure(small):
    x = 3 * torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        output = small(x)
    threshold = torch.stack(output.logits).softmax(2).amax(2).median().item()
    expected_logits, expected_used = first_confident(output, threshold)
    assert len(expected_used.unique()) >= 3
    logits, used = early_exit(small, x, threshold)
    assert torch.equal(used, expected_used)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)


def test_early_exit_runs_only_the_remaining_samples_deeper(small):
    sizes = []
    for stage in small.trunk:
        stage.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    x = 3 * torch.randn(64, 3, 16, 16)
    with torch.no_grad():
        threshold = small(x).logits[3].softmax(1).amax(1).median().item()
    sizes.clear()
    _, used = early_exit(small, x, threshold)
    assert sizes == [int((used >= number).sum()) for number in range(1, used.max() + 1)]
    assert sizes[0] == 64
    assert sizes[1] < 64


@pytest.mark.parametrize(("threshold", "exit"), [(0.0, 1), (1.1, 4)])
def test_early_exit_at_the_extremes(small, threshold, exit):
    x = torch.randn(6, 3, 16, 16)
    logits, used = early_exit(small, x, threshold)
    assert used.tolist() == [exit] * 6
    with torch.no_grad():
        assert torch.equal(logits, small(x).logits[4 - exit])


def test_early_exit_of_an_empty_batch(small):
    logits, used = early_exit(small, torch.zeros(0, 3, 16, 16), 0.5)
    assert logits.shape == (0, 10)
    assert used.shape == (0,)


def test_early_exit_of_a_model_in_training_is_refused(small):
    with pytest.raises(RequestError, match=r"model\.eval\(\)"):
        early_exit(small.train(), torch.zeros(1, 3, 16, 16), 0.5)


def test_one_stage_is_no_self_distillation():
    with pytest.raises(RequestError, match="two stages"):
        byot_small(input_shape=(1, 8, 8), classes=10, widths=(16,))


def test_the_small_network_learns_digits_at_every_exit():
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    network = byot_small(input_shape=(1, 8, 8), classes=10)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(3):
        for rows in torch.randperm(1280).split(64):
            loss = sum(nn.functional.cross_entropy(z, labels[rows]) for z in network(images[rows]).logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        output = network(images[1280:])
    for logits in output.logits:
        assert (logits.argmax(1) == labels[1280:]).float().mean() > 0.8
