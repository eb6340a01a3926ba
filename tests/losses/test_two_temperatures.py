"""Soft labels of one temperature for a student of another, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from limbeck import losses
from limbeck.errors import RequestError
from limbeck.losses import TopK


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize(("scale", "factor"), [(False, 1.0), (True, 3.0 * 5.0)])
def test_value_and_gradient(scale: bool, factor: float) -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(0, 3, (4, 6)), rng.normal(0, 3, (4, 6))
    student = torch.tensor(s, dtype=torch.float32, requires_grad=True)
    loss = losses.soft_cross_entropy(
        student, torch.tensor(t, dtype=torch.float32), temperature=3.0, teacher_temperature=5.0, scale=scale
    )
    p = np.exp(log_softmax(t / 5))
    np.testing.assert_allclose(loss.detach(), factor * -(p * log_softmax(s / 3)).sum(-1), rtol=1e-5)
    loss.sum().backward()
    # d/ds of −Σ p log softmax(s / T) is (softmax(s / T) − p) / T.
    np.testing.assert_allclose(student.grad, factor * (np.exp(log_softmax(s / 3)) - p) / 3, rtol=1e-4, atol=1e-6)


def test_without_one_of_its_own_the_teacher_has_the_students() -> None:
    s, t = torch.randn(4, 6), torch.randn(4, 6)
    same = losses.soft_cross_entropy(s, t, temperature=3.0, teacher_temperature=3.0)
    torch.testing.assert_close(losses.soft_cross_entropy(s, t, temperature=3.0), same)


@pytest.mark.parametrize("rest", ["bucket", "spread"])
def test_a_top_k_teacher_that_names_all_classes_but_one_agrees(rest: str) -> None:
    # With one class unnamed, bucket and spread both know the whole distribution.
    s, t = torch.randn(4, 6), torch.randn(4, 6)
    log_probs, indices = t.log_softmax(-1).topk(5)
    sparse = losses.soft_cross_entropy(s, TopK(log_probs, indices), temperature=3.0, teacher_temperature=5.0, rest=rest)
    torch.testing.assert_close(sparse, losses.soft_cross_entropy(s, t, temperature=3.0, teacher_temperature=5.0))


def test_it_must_be_positive() -> None:
    with pytest.raises(RequestError, match="temperature must be above 0 and finite, not 0"):
        losses.soft_cross_entropy(torch.ones(1, 2), torch.ones(1, 2), teacher_temperature=0.0)
