"""The accuracy/compute curve is what early exit, sample by sample, gives and costs."""

from __future__ import annotations

import pytest
import torch

from limbeck.data import InMemory, make_loader
from limbeck.distillers import SelfDistiller
from limbeck.errors import RequestError
from limbeck.measure.early_exit import EarlyPoint, ExitRecord, ask_exits, cheapest, early_point
from limbeck.models.networks.multi_exit import MultiExit, byot_small, early_exit


@pytest.fixture
def network() -> MultiExit:
    network = byot_small(input_shape=(1, 8, 8), classes=10, widths=(4, 6, 8))
    with torch.no_grad():
        for _ in range(10):
            network(torch.rand(32, 1, 8, 8))
    return network.eval()


@pytest.fixture
def samples() -> InMemory:
    return InMemory(3 * torch.randn(90, 1, 8, 8), torch.arange(90) % 10)


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.3, 0.5, 1.0])
def test_a_point_is_what_early_exit_gives(network: MultiExit, samples: InMemory, threshold: float) -> None:
    record = ask_exits(SelfDistiller(network), make_loader(samples, 32))
    found = early_point(record, [10, 20, 40], threshold)
    logits, used = early_exit(network, samples.inputs, threshold)
    assert found.accuracy == pytest.approx((logits.argmax(1) == samples.targets).float().mean().item())
    assert found.shares == pytest.approx([(used == exit).float().mean().item() for exit in (1, 2, 3)])
    assert found.multiply_adds == pytest.approx(torch.tensor([0.0, 10.0, 20.0, 40.0])[used].mean().item())


def test_the_record_is_each_exits_own(network: MultiExit, samples: InMemory) -> None:
    record = ask_exits(SelfDistiller(network), make_loader(samples, 32))
    with torch.no_grad():
        deepest, _, shallowest = network(samples.inputs).logits
    torch.testing.assert_close(record.confidence[:, 0], shallowest.softmax(1).amax(1))
    assert torch.equal(record.hits[:, 2], deepest.argmax(1) == samples.targets)
    assert record.ensemble.shape == (90,)


def test_by_hand() -> None:
    record = ExitRecord(
        confidence=torch.tensor([[0.95, 0.5], [0.6, 0.4], [0.8, 0.99], [0.2, 0.3]]),
        hits=torch.tensor([[True, False], [False, True], [False, True], [True, False]]),
        ensemble=torch.tensor([True] * 4),
    )
    assert early_point(record, [1, 5], 0.8) == EarlyPoint(0.8, 0.5, 3.0, (0.5, 0.5))
    assert early_point(record, [1, 5], 0.9) == EarlyPoint(0.9, 0.75, 4.0, (0.25, 0.75))
    # The record is left as it was.
    assert record.confidence[3, 1].item() == pytest.approx(0.3)


def test_the_cheapest_of_those_that_are_good_enough() -> None:
    points = [EarlyPoint(0.5, 0.80, 10.0, ()), EarlyPoint(0.7, 0.90, 20.0, ()), EarlyPoint(0.9, 0.91, 30.0, ())]
    assert cheapest(points, 0.9) is points[1]
    assert cheapest(points, 0.7) is points[0]
    assert cheapest(points, 0.95) is None


def test_an_empty_loader_is_refused(network: MultiExit) -> None:
    with pytest.raises(RequestError, match="gives no batch at all"):
        ask_exits(SelfDistiller(network), [])
