"""Named methods and schemes against the whole loss of their authors' code, in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, TeacherOutput, VirtualTeacher
from limbeck.recipes import schema
from limbeck.recipes.methods import METHODS, SCHEMES
from limbeck.runs import learners


class Logits(nn.Module):
    """A student whose answer to any batch is its parameter."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.values


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def standardized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-7)


def made(student: nn.Module, task_weight: float, terms: list[dict[str, Any]]) -> Distiller:
    return Distiller(
        student, [learners.term(schema.Term.model_validate(term)) for term in terms], task_weight=task_weight
    )


def test_teacher_free_rests_where_the_authors_loss_rests() -> None:
    """Theirs is 0.9 CE + 0.1 KL(softmax(u / 20) ‖ p), multiplier 100 of a mean over 100 classes, no T² and p at T 1.

    It is least at p = 0.9 y + 0.1 softmax(u / 20), u = 0.99 for the label and 0.01 shared by the others.
    """
    classes, label = 100, 7
    u = np.full(classes, 0.01 / (classes - 1))
    u[label] = 0.99
    wanted = 0.1 * softmax(u / 20)
    wanted[label] += 0.9
    assert round(wanted[label], 4) == 0.9011

    preset = SCHEMES["teacher-free"]
    student = Logits(torch.zeros(1, classes, dtype=torch.float64))
    distiller = made(student, preset["task_weight"], preset["terms"])
    batch = Batch(torch.zeros(1, 1), torch.tensor([label]), torch.tensor([0]))
    teacher_output = VirtualTeacher(classes, **preset["options"])(batch)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = distiller(batch, teacher_output).loss
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(loss)
    np.testing.assert_allclose(student.values.detach().softmax(1)[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "weight", "temperatures", "standardize"),
    [
        ("mlkd", 0.9, (4, 3, 5, 2, 6), False),
        ("ls-mlkd", 9.0, (2, 3, 5, 2, 6), True),  # logit-standardization-KD: --base-temp 2 --kd-weight 9
    ],
)
def test_mlkd_weighs_its_levels_as_the_authors_code_does(
    name: str, weight: float, temperatures: tuple[int, ...], standardize: bool
) -> None:
    """Of both views alike: labels twice; instances with a mask once and without once; batch and class with the mask."""
    rng = np.random.default_rng(0)
    b, c = 8, 6
    s, t, y = 2 * rng.normal(size=(b, c)), 2 * rng.normal(size=(b, c)), rng.integers(0, c, b)
    mask = 0.5  # the mean of a mask below the median
    theirs = 0.1 * 2 * -np.log(softmax(s)[np.arange(b), y]).mean()
    z_s, z_t = (standardized(s), standardized(t)) if standardize else (s, t)
    for temperature in temperatures:
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        instance = temperature**2 * (p_t * np.log(p_t / p_s)).sum(1).mean()
        p_s, p_t = softmax(s / temperature), softmax(t / temperature)
        batches = ((p_s @ p_s.T - p_t @ p_t.T) ** 2).sum() / b
        classes = ((p_s.T @ p_s - p_t.T @ p_t) ** 2).sum() / c
        theirs += weight * ((mask + 1) * instance + mask * batches + mask * classes)

    method = METHODS[name].default
    distiller = made(Logits(torch.tensor(s)), method.task_weight, method.terms(None))
    batch = Batch(torch.zeros(b, 1), torch.tensor(y), torch.arange(b))
    np.testing.assert_allclose(distiller(batch, TeacherOutput(torch.tensor(t))).loss.item(), theirs, rtol=1e-6)
