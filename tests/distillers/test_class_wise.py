from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch
from limbeck.distillers import ClassWise
from limbeck.distillers.class_wise import partners
from limbeck.errors import RequestError

TARGETS = torch.tensor([2, 0, 2, 1, 0, 2])  # the sample of class 1 is alone
NEXT = [2, 4, 5, None, 1, 0]
B, C = 6, 3


class Table(nn.Module):
    """A student whose logits are its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Parameter(3 * torch.randn(B, C))

    def forward(self, x: Tensor) -> Tensor:
        return 1 * self.z


def batch() -> Batch:
    return Batch(torch.zeros(B, 1), TARGETS, torch.arange(B))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_loss_compares_each_sample_with_the_next_of_its_class() -> None:
    student = Table()
    step = ClassWise(student, weight=0.5, task_weight=2.0)(batch(), None)
    z = student.z.detach().double().numpy()
    task = -np.log(softmax(z)[np.arange(B), TARGETS]).mean()
    kl = 0.0
    for i, j in enumerate(NEXT):
        if j is not None:
            p, q = softmax(z[j] / 4), softmax(z[i] / 4)
            kl += 16 * (p * np.log(p / q)).sum() / B
    assert step.parts["task"].item() == pytest.approx(task, rel=1e-5)
    assert step.parts["class-wise"].item() == pytest.approx(kl, rel=1e-5)
    assert step.loss.item() == pytest.approx(2 * task + 0.5 * kl, rel=1e-5)


def test_a_sample_is_moved_by_its_partner_but_not_by_being_one() -> None:
    student = Table()
    ClassWise(student, task_weight=0)(batch(), None).loss.backward()
    z = student.z.detach().double().numpy()
    for i, j in enumerate(NEXT):
        expected = np.zeros(C) if j is None else 4 * (softmax(z[i] / 4) - softmax(z[j] / 4)) / B  # T² / T
        np.testing.assert_allclose(student.z.grad[i].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("targets", [[], [3], [1, 1], [0, 1, 2], [5, 5, 5, 5], [2, 0, 2, 1, 0, 2, 2]])
def test_partners_are_a_permutation_within_each_class(targets: list[int]) -> None:
    labels = torch.tensor(targets, dtype=torch.long)
    found = partners(labels)
    assert sorted(found.tolist()) == list(range(len(targets)))
    assert torch.equal(labels[found], labels)
    for i, j in enumerate(found.tolist()):
        assert (i == j) == (targets.count(targets[i]) == 1)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda: ClassWise(Table(), temperature=0), "temperature must be above 0 and finite, not 0"),
        (lambda: ClassWise(Table(), weight=-0.5), "weight must be 0 or more, not -0.5"),
        (
            lambda: ClassWise(Table()).prepare(batch()._replace(targets=torch.rand(B, C)), None),
            r"needs one class index a sample, not targets \(6, 3\) of torch.float32; leave mixup and cutmix out",
        ),
    ],
)
def test_wrong_requests_are_refused_in_one_line(request_: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_()
    assert "\n" not in str(caught.value)
