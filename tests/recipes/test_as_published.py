"""Named schemes against the whole loss of their authors' code, in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, VirtualTeacher
from limbeck.recipes import schema
from limbeck.recipes.methods import SCHEMES
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
