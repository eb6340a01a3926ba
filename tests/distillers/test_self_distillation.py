from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch
from limbeck.distillers import SelfDistiller
from limbeck.errors import RequestError
from limbeck.models.networks.multi_exit import Exits, MultiExit, byot_small, exit_network

B, C, WIDTHS = 5, 3, (4, 6, 7, 8)  # feature widths, deepest first


class Table(nn.Module):
    """Exits whose logits and features are themselves the parameters: gradients show who learns from whom."""

    def __init__(self, exits: int = 4) -> None:
        super().__init__()
        self.logits = nn.ParameterList(3 * torch.randn(B, C) for _ in range(exits))
        self.features = nn.ParameterList(torch.randn(B, width) for width in WIDTHS[:exits])

    def forward(self, x: Tensor) -> Exits:
        return Exits(tuple(self.logits), tuple(self.features))


def batch() -> Batch:
    return Batch(torch.zeros(B, 1), torch.tensor([0, 1, 2, 0, 1]), torch.arange(B))


def ready(**options: Any) -> SelfDistiller:
    distiller = SelfDistiller(Table(), **options)
    distiller.prepare(batch(), None)
    return distiller


def double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(z: Tensor) -> float:
    return -np.log(softmax(double(z))[np.arange(B), batch().targets]).mean()


def test_loss_is_the_papers_sum() -> None:
    distiller = ready(soft_weight=0.4, hint_weight=0.05, temperature=3.0)
    step = distiller(batch(), None)
    z, f = distiller.student.logits, distiller.student.features
    guide = softmax(double(z[0]) / 3)
    expected = {"task 4/4": cross_entropy(z[0])}
    total = expected["task 4/4"]
    for index, exit in ((1, 3), (2, 2), (3, 1)):
        task = expected[f"task {exit}/4"] = cross_entropy(z[index])
        # No T², as in the authors' code.
        soft = expected[f"soft {exit}/4"] = -(guide * np.log(softmax(double(z[index]) / 3))).sum(1).mean()
        total += 0.6 * task + 0.4 * soft
        if exit < 3:
            linear = distiller.adapters[f"exit{exit}"]
            adapted = double(f[index]) @ double(linear.weight).T + double(linear.bias)
            hint = expected[f"hint {exit}/4"] = np.sqrt(((adapted - double(f[0])) ** 2).sum())
            total += 0.05 * hint
    assert {name: part.item() for name, part in step.parts.items()} == pytest.approx(expected, rel=1e-5)
    assert step.loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(step.output, z[0])


def test_the_deepest_exit_learns_from_the_labels_alone() -> None:
    distiller = ready()
    distiller(batch(), None).loss.backward()
    z, f = distiller.student.logits, distiller.student.features
    onehot = np.eye(C)[batch().targets]
    np.testing.assert_allclose(double(z[0].grad), (softmax(double(z[0])) - onehot) / B, atol=1e-6)
    assert f[0].grad is None
    assert f[1].grad is None  # the exit next to the deepest gets no hint
    assert all(f[index].grad.abs().sum() > 0 for index in (2, 3))


def test_a_shallow_exit_learns_from_labels_and_soft_labels() -> None:
    distiller = ready(soft_weight=0.3, temperature=3.0, hint_weight=0)
    distiller(batch(), None).loss.backward()
    z = distiller.student.logits
    onehot = np.eye(C)[batch().targets]
    hard = (softmax(double(z[2])) - onehot) / B
    soft = (softmax(double(z[2]) / 3) - softmax(double(z[0]) / 3)) / (3 * B)
    np.testing.assert_allclose(double(z[2].grad), 0.7 * hard + 0.3 * soft, atol=1e-6)


def test_linear_layers_of_the_hints_exist_before_the_optimizer() -> None:
    distiller = ready()
    names = [name for name, _ in distiller.named_parameters() if name.startswith("adapters.")]
    assert names == [f"adapters.exit{exit}.{kind}" for exit in (1, 2) for kind in ("weight", "bias")]
    made = dict(distiller.adapters.items())
    distiller.prepare(batch(), None)
    assert dict(distiller.adapters.items()) == made
    distiller(batch(), None).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in distiller.adapters.parameters())
    assert not ready(hint_weight=0).adapters


def test_two_exits_need_no_hint() -> None:
    distiller = SelfDistiller(Table(exits=2))
    distiller.prepare(batch(), None)
    assert list(distiller(batch(), None).parts) == ["task 2/2", "task 1/2", "soft 1/2"]


def test_every_exit_and_the_ensemble_predict() -> None:
    network = byot_small(input_shape=(1, 8, 8), classes=3, widths=(4, 6, 8)).eval()
    distiller = SelfDistiller(network).eval()
    x = torch.randn(2, 1, 8, 8)
    named = distiller.predictions(x)
    assert list(named) == ["exit 1/3", "exit 2/3", "exit 3/3", "ensemble"]
    for exit in (1, 2, 3):
        torch.testing.assert_close(named[f"exit {exit}/3"], exit_network(network, exit)(x))
    mean = (named["exit 1/3"] + named["exit 2/3"] + named["exit 3/3"]) / 3
    torch.testing.assert_close(distiller.predict(x), mean)


def test_it_takes_a_step_on_the_small_network() -> None:
    network: MultiExit = byot_small(input_shape=(1, 8, 8), classes=3, widths=(4, 6, 8))
    distiller = SelfDistiller(network)
    data = Batch(torch.randn(B, 1, 8, 8), batch().targets, torch.arange(B))
    distiller.prepare(data, None)
    step = distiller(data, None)
    step.loss.backward()
    assert all(p.grad is not None for p in distiller.parameters())
    assert list(step.parts) == ["task 3/3", "task 2/3", "soft 2/3", "task 1/3", "soft 1/3", "hint 1/3"]


def test_equal_features_give_a_finite_gradient() -> None:
    distiller = ready()
    for index, exit in ((2, 2), (3, 1)):
        nn.init.zeros_(distiller.adapters[f"exit{exit}"].weight)
        nn.init.zeros_(distiller.adapters[f"exit{exit}"].bias)
        assert distiller.student.features[index].shape[1] == WIDTHS[index]
    nn.init.zeros_(distiller.student.features[0])
    distiller(batch(), None).loss.backward()
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.grad is not None)


class Maps(Table):
    def forward(self, x: Tensor) -> Exits:
        logits, features = super().forward(x)
        return Exits(logits, tuple(f[:, :, None, None] for f in features))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: SelfDistiller(Table(), soft_weight=1.5), "soft_weight must lie between 0 and 1, not 1.5"),
        (lambda: SelfDistiller(Table(), hint_weight=-1), "hint_weight must be 0 or more, not -1"),
        (lambda: SelfDistiller(Table(), temperature=0), "temperature must be above 0 and finite, not 0"),
        (
            lambda: SelfDistiller(nn.Linear(1, 3)).prepare(batch(), None),
            "returns two Exits or more, and Linear does not",
        ),
        (lambda: SelfDistiller(Table(exits=1)).prepare(batch(), None), "two Exits or more"),
        (lambda: SelfDistiller(Maps()).prepare(batch(), None), r"need features \(B, D\), and exits 1 and 4 give"),
        (lambda: SelfDistiller(Table())(batch(), None), r"call prepare\(batch, None\) before making the optimizer"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)
