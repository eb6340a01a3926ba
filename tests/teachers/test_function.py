from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from limbeck import Distiller, FunctionTeacher, Hardware, Teacher, Term, fit, losses
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.types import Batch

BATCH = Batch(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([0, 1]), torch.arange(2))


def test_logits_come_back_in_fp32_and_without_gradient() -> None:
    weight = torch.eye(2, dtype=torch.float64, requires_grad=True)
    teacher_output = FunctionTeacher(lambda x: x.double() @ weight * 2)(BATCH)
    assert teacher_output.features == {}
    torch.testing.assert_close(teacher_output.output, torch.tensor([[2.0, 4.0], [6.0, 10.0]]))
    assert not teacher_output.output.requires_grad


def test_numpy_in_and_out() -> None:
    def function(x: Any) -> Any:
        assert type(x) is np.ndarray
        return {"logits": x - 1, "hidden": (x**2).tolist()}

    logits, features = FunctionTeacher(function, numpy=True)(BATCH)
    torch.testing.assert_close(logits, torch.tensor([[0.0, 1.0], [2.0, 4.0]]))
    torch.testing.assert_close(features["hidden"], torch.tensor([[1.0, 4.0], [9.0, 25.0]]))


def test_rows_of_numbers_are_one_array() -> None:
    teacher = FunctionTeacher(lambda x: [[float(value) for value in row] for row in x])
    torch.testing.assert_close(teacher(BATCH).output, BATCH.inputs.float())
    assert teacher.notes == []


def test_named_inputs_are_keywords() -> None:
    batch = Batch({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, torch.tensor([0, 1]), torch.arange(2))
    torch.testing.assert_close(FunctionTeacher(lambda a, b: a + b)(batch).output, torch.full((2, 3), 2.0))


def test_probabilities_are_taken_for_logits() -> None:
    given = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    logits = FunctionTeacher(lambda x: given, probabilities=True)(BATCH).output
    torch.testing.assert_close(logits.softmax(1), given, rtol=0, atol=1e-6)
    with pytest.raises(RequestError, match=r"ends in probabilities .* set probabilities=True"):
        FunctionTeacher(lambda x: given)(BATCH)
    with pytest.raises(RequestError, match="leave probabilities out if they are logits"):
        FunctionTeacher(lambda x: x, probabilities=True)(BATCH)


def test_each_is_one_of_its_own_unless_it_is_named() -> None:
    def function(x: Tensor) -> Tensor:
        return x

    assert isinstance(FunctionTeacher(function), Teacher)
    assert FunctionTeacher(function).fingerprint != FunctionTeacher(function).fingerprint
    assert FunctionTeacher(function, fingerprint="rule 3").fingerprint == "rule 3"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gave NoneType as logits, no array"),
        (torch.zeros(3, 2), r"logits of shape \(3, 2\) for 2 samples; outputs are logits \(B, C\), or numbers \(B,\)"),
        (torch.zeros(2).long(), r"logits of shape \(2,\) for 2 samples"),
        ({"hidden": torch.zeros(1, 4)}, r"hidden of shape \(1, 4\) for 2 samples; features are \(B, \.\.\.\)"),
    ],
)
def test_what_is_no_teacher_output_is_refused(value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        FunctionTeacher(lambda x: value)(BATCH)


class TestFit:
    def learn(self, data: InMemory, student: nn.Module, teacher: Any, *terms: Term) -> Any:
        return fit(
            Distiller(student, [Term(losses.kd), *terms], task_weight=0.0),
            make_loader(data, 16, seed=3),
            teacher=teacher,
            epochs=20,
            optimizer=partial(torch.optim.Adam, lr=0.05),
            hardware=Hardware("cpu"),
            progress=False,
        )

    def test_takes_a_plain_function(self, blobs: InMemory) -> None:
        """The student, who sees no label, learns what scikit-learn's classifier says."""
        linear = LogisticRegression(max_iter=1000).fit(blobs.inputs, blobs.targets)
        done = self.learn(blobs, nn.Linear(4, 3), lambda x: linear.decision_function(x))
        said = done.student(blobs.inputs).argmax(1)
        assert (said == torch.as_tensor(linear.predict(blobs.inputs))).float().mean() > 0.95

    def test_checks_its_features_before_the_first_step(self, blobs: InMemory) -> None:
        hint = Term(losses.mse, student="", teacher="hiden")
        with pytest.raises(RequestError, match="unknown teacher tap 'hiden'; did you mean hidden"):
            self.learn(blobs, nn.Linear(4, 3), lambda x: {"logits": x[:, :3], "hidden": x}, hint)

    def test_refuses_what_cannot_be_called(self, blobs: InMemory) -> None:
        with pytest.raises(RequestError, match="a teacher is a module, a Teacher or a function of the inputs, not 3"):
            self.learn(blobs, nn.Linear(4, 3), 3)
