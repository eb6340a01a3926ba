"""Options of another kind get one line that says what is wanted, as soon as they are given or in the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from limbeck import Batch, Distiller, RequestError, TeacherOutput, Term, losses
from limbeck.distillers import MeanTeacher, MutualDistiller

STUDENT = nn.Linear(4, 3)
TERM = Term(losses.kd)
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: Distiller(STUDENT, [TERM], task_weight="x"), "task_weight must be 0 or more, not 'x'"),
    (lambda: Distiller(STUDENT, [TERM], task_weight=None), "task_weight must be 0 or more, not None"),
    (lambda: Distiller(STUDENT, [TERM], common_classes="x"), "common_classes is a whole number from 1 on, not 'x'"),
    (lambda: Distiller(STUDENT, [TERM], common_classes=0), "common_classes is a whole number from 1 on, not 0"),
    (lambda: Distiller(STUDENT, [TERM], inputs="x"), "what prepares the inputs is a torch.nn.Module, not 'x'"),
    (lambda: Term(losses.kd, weight="x"), "term kd: weight is a number or a function of the epoch, not 'x'"),
    (lambda: Term(losses.kd, weight=True), "term kd: weight is a number or a function of the epoch, not True"),
    (lambda: Term(losses.mse, student=5), "term mse: student is a tap such as 'layer2', or some, not 5"),
    (lambda: Term(losses.mse, teacher=("a", 5)), r"term mse: teacher is a tap .*, not \('a', 5\)"),
    (
        lambda: MutualDistiller([STUDENT, nn.Linear(4, 3)], temperature=True),
        "temperature must be above 0 and finite, not True",
    ),
    (
        lambda: MutualDistiller([STUDENT, nn.Linear(4, 3)], temperature="4"),
        "temperature must be above 0 and finite, not '4'",
    ),
    (lambda: MeanTeacher(STUDENT, [TERM], task_weight=[1]), r"task_weight must be 0 or more, not \[1\]"),
    (lambda: step(Term(losses.kd, temperature=None)), "temperature must be above 0 and finite, not None"),
    (lambda: step(Term(losses.kd, temperature="4")), "temperature must be above 0 and finite, not '4'"),
]


def step(term: Term) -> float:
    batch = Batch(torch.randn(2, 4), torch.tensor([0, 2]), torch.arange(2))
    return float(Distiller(STUDENT, [term])(batch, TeacherOutput(torch.randn(2, 3))).loss.detach())


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_options_of_another_kind_are_refused_in_words(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"^{message}$"):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    Distiller(STUDENT, [Term(losses.kd, weight=np.float32(0.9))], task_weight=np.float32(0.1))
    assert step(Term(losses.kd, temperature=np.float32(2.0))) > 0
