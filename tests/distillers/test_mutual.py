from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch
from limbeck.distillers import MutualDistiller
from limbeck.errors import RequestError

B, C = 5, 3


class Table(nn.Module):
    """A peer whose logits are its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(3 * torch.randn(B, C))

    def forward(self, x: Tensor) -> Tensor:
        return 1 * self.z


def batch() -> Batch:
    return Batch(torch.zeros(B, 1), torch.tensor([0, 1, 2, 0, 1]), torch.arange(B))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits(peers: list[Table]) -> list[np.ndarray]:
    return [peer.z.detach().double().numpy() for peer in peers]


def test_loss_and_parts_of_three_peers() -> None:
    peers = [Table() for _ in range(3)]
    step = MutualDistiller(peers, weight=0.7, temperature=2.0, task_weight=0.4)(batch(), None)
    z = logits(peers)
    expected, total = {}, 0.0
    for i in range(3):
        task = -np.log(softmax(z[i])[np.arange(B), batch().targets]).mean()
        kls = []
        for j in range(3):
            if j != i:
                p, q = softmax(z[j] / 2), softmax(z[i] / 2)
                kls.append(4 * (p * np.log(p / q)).sum(1).mean())
        expected |= {f"task {i + 1}": task, f"mutual {i + 1}": np.mean(kls)}
        total += 0.4 * task + 0.7 * np.mean(kls)
    assert {name: part.item() for name, part in step.parts.items()} == pytest.approx(expected, rel=1e-5)
    assert step.loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(step.output, peers[0].z)


def test_a_peer_is_moved_by_what_others_say_but_not_by_teaching_them() -> None:
    peers = [Table() for _ in range(3)]
    MutualDistiller(peers, temperature=2.0)(batch(), None).loss.backward()
    z = logits(peers)
    onehot = np.eye(C)[batch().targets]
    for i, peer in enumerate(peers):
        hard = softmax(z[i]) - onehot
        others = np.mean([softmax(z[j] / 2) for j in range(3) if j != i], axis=0)
        soft = 2 * (softmax(z[i] / 2) - others)  # T² / T
        np.testing.assert_allclose(peer.z.grad.numpy(), (hard + soft) / B, atol=1e-6)


def test_peers_alike_teach_each_other_nothing() -> None:
    peers = [Table(), Table()]
    peers[1].load_state_dict(peers[0].state_dict())
    step = MutualDistiller(peers)(batch(), None)
    assert step.parts["mutual 1"] == step.parts["mutual 2"] == 0


def test_every_peer_predicts_and_the_ensemble_is_their_mean_probability() -> None:
    peers = [Table(), Table()]
    named = MutualDistiller(peers).predictions(batch().inputs)
    assert list(named) == ["peer 1", "peer 2", "ensemble"]
    mean = np.mean([softmax(z) for z in logits(peers)], axis=0)
    np.testing.assert_allclose(named["ensemble"].detach().exp().numpy(), mean, rtol=1e-5)


def test_all_peers_are_trained_and_saved_once() -> None:
    distiller = MutualDistiller([nn.Linear(1, 3) for _ in range(3)])
    assert len(distiller.peers) == 3
    assert len(list(distiller.parameters())) == len(distiller.state_dict()) == 6


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: MutualDistiller([Table()]), "two peers or more, not 1"),
        (lambda: MutualDistiller([Table()] * 2), "one module is given twice"),
        (lambda: MutualDistiller([Table(), Table()], temperature=-1), "temperature must be above 0 and finite, not -1"),
        (lambda: MutualDistiller([Table(), Table()], weight=-1), "weight must be 0 or more, not -1"),
        (
            lambda: MutualDistiller([nn.Linear(1, 3), nn.Linear(1, 4)]).prepare(batch(), None),
            r"shapes \(5, 3\), \(5, 4\); all must be the same",
        ),
    ],
)
def test_wrong_requests_are_refused_in_one_line(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)
