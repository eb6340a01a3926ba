"""Probabilities that are not exact: tolerated where they are declared, asked about where not; against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck import FunctionTeacher, RequestError
from limbeck.models.probabilities import Ending, are_probabilities
from limbeck.types import Batch


def softmax(classes: int, samples: int = 24, scale: float = 3.0) -> Any:
    scores = np.random.default_rng(0).normal(0, scale, (samples, classes))
    return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def top(p: Any, k: int) -> Any:
    return np.where(p >= np.sort(p, 1)[:, -k, None], p, 0)


COARSE = {
    "8 bits": np.minimum(np.round(softmax(100) * 256), 255) / 256,
    "two decimals": np.round(softmax(10), 2),
    "percentages": np.round(100 * softmax(10), 1),
    "a little below 0": softmax(10) - 1e-7,
    "half precision": softmax(1000, scale=1).astype(np.float16).astype(float),
}


@pytest.mark.parametrize("what", COARSE)
def test_rows_within_rounding_are_brought_to_the_sum_1(what: str) -> None:
    values = COARSE[what]
    said = Ending(probabilities=True)(torch.tensor(values, dtype=torch.float32)).softmax(1)
    positive = np.maximum(values, 0)
    np.testing.assert_allclose(said.numpy(), positive / positive.sum(1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("what", [what for what in COARSE if what != "a little below 0"])
def test_undeclared_they_are_asked_about(what: str) -> None:
    with pytest.raises(RequestError, match="probabilities=True"):
        Ending(probabilities=False)(torch.tensor(COARSE[what], dtype=torch.float32))


def test_the_likeliest_alone() -> None:
    values = top(softmax(10, scale=1), 3)
    assert 0.3 < values.sum(1).min() < 0.8
    ending = Ending(probabilities=True)
    said = ending(torch.tensor(values, dtype=torch.float32)).softmax(1)
    np.testing.assert_allclose(said.numpy(), values / values.sum(1, keepdims=True), atol=1e-5)
    (note,) = ending.notes
    assert note.endswith("each row is brought to the sum 1")
    row = torch.zeros(1, 10)
    torch.testing.assert_close(ending(row).softmax(1), torch.full((1, 10), 0.1))  # all of them rounded to 0


def test_exact_ones_are_no_news() -> None:
    ending = Ending(probabilities=True)
    ending(torch.tensor(softmax(10), dtype=torch.float32))
    assert ending.notes == []


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([[2.0, -1.0, 0.5], [1.0, 0.0, 0.0]]),
        torch.full((4, 10), 0.6),  # ten sigmoids
        torch.tensor([[0.5, torch.nan]]),
        torch.rand(4, 1),
    ],
)
def test_what_cannot_be_probabilities_is_refused_with_its_figures(values: Tensor) -> None:
    with pytest.raises(RequestError, match=r"gives numbers from .* in rows of sum .*leave probabilities out"):
        Ending(probabilities=True)(values)


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_logits_are_no_probabilities(scale: float) -> None:
    values = scale * torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    for one in (values, values.log_softmax(1), values.relu() + 1):
        assert torch.equal(Ending(probabilities=False)(one), one)
        assert not are_probabilities(one)


def test_a_function_tells_of_it_once() -> None:
    values = torch.tensor(COARSE["8 bits"][:2], dtype=torch.float32)
    teacher = FunctionTeacher(lambda x: values, probabilities=True)
    batch = Batch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.arange(2))
    teacher(batch)
    teacher(batch)
    assert len(teacher.notes) == 1
