"""Vocabularies padded to different sizes are compared on their common part; other differences are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Batch, Distiller, RequestError, TeacherOutput, Term, losses
from limbeck.tasks import Classification

IDS = torch.randint(0, 90, (3, 5))
TEXT = Batch(IDS, IDS, torch.arange(3))


def task(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.transpose(1, 2), targets)


def language_model(vocabulary: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(vocabulary, 8), nn.Linear(8, vocabulary))


def softmax(x: Tensor) -> np.ndarray:
    wide = x.detach().double().numpy()
    e = np.exp(wide - wide.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(("ours", "theirs"), [(100, 104), (104, 100)])
def test_the_common_part_is_compared_and_that_is_said_once(
    ours: int, theirs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    student, said = language_model(ours), torch.randn(3, 5, theirs)
    distiller = Distiller(student, [Term(losses.kd, temperature=1.0)], task=Classification(loss=task))
    distiller.prepare(TEXT, TeacherOutput(said))
    step = distiller(TEXT, TeacherOutput(said))
    z = student(IDS)
    p, q = softmax(said[..., :100]), softmax(z[..., :100])
    assert step.parts["kd"].item() == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    torch.testing.assert_close(step.parts["task"], task(z, IDS).detach())  # over all of the student's own entries
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"the teacher has {theirs} classes and the student {ours}" in line
    assert "compare the first 100" in line
    if theirs > 100:
        assert f"{softmax(said)[..., :100].sum(-1).mean():.2%}" in line
    step.loss.backward()
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "targets", "message"),
    [
        ((3, 10), (3, 100), torch.arange(3), "the teacher knows 100 classes and the student 10"),
        ((3, 100), (3, 104), torch.arange(3), "the teacher knows 104 classes"),  # a classifier has no padding
        ((3, 5, 100), (3, 5, 110), IDS, "the teacher knows 110 classes"),
        ((3, 5, 100), (3, 4, 104), IDS, "the teacher knows 104 classes"),
        ((3, 5, 100), (3, 5, 104), IDS.clone().fill_(100), "the label 100 lies behind the 100 that both know"),
        ((3, 10, 5, 5), (3, 100, 5, 5), torch.zeros(3, 5, 5).long(), "the teacher knows 100 classes"),
    ],
)
def test_other_differences_are_refused(student: Any, teacher: Any, targets: Tensor, message: str) -> None:
    batch = Batch(torch.randn(student), targets, torch.arange(3))
    distiller = Distiller(nn.Identity(), [Term(losses.kd)], task=Classification(loss=lambda z, y: z.mean()))
    with pytest.raises(RequestError, match=message):
        distiller.prepare(batch, TeacherOutput(torch.randn(teacher)))


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), 1), ((4, 6, 2, 3), 1), ((4, 2, 6), 2)])
def test_a_user_may_say_which_classes_are_the_same(
    shape: tuple[int, ...], axis: int, capsys: pytest.CaptureFixture[str]
) -> None:
    student = torch.randn(shape)
    said = torch.randn([9 if size == 6 else size for size in shape])
    terms = [Term(losses.kd), Term(losses.mse, student="0", teacher="0")]
    distiller = Distiller(nn.Sequential(nn.Identity()), terms, task_weight=0, common_classes=5)
    batch = Batch(student, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    teacher_output = TeacherOutput(said, {"0": torch.randn(shape)})
    distiller.prepare(batch, teacher_output)
    parts = distiller(batch, teacher_output).parts
    torch.testing.assert_close(parts["kd"], losses.kd(student.narrow(axis, 0, 5), said.narrow(axis, 0, 5)).mean())
    torch.testing.assert_close(parts["mse"], losses.mse(student, teacher_output.features["0"]).mean())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("sparse", [losses.Sampled, losses.TopK])
def test_some_classes_of_a_teacher_cannot_be_cut_to_common_ones(sparse: Any) -> None:
    batch = Batch(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    distiller = Distiller(nn.Identity(), [Term(losses.kd, temperature=1.0)], common_classes=3)
    teacher = TeacherOutput(sparse(torch.full((4, 2), -1.0), torch.tensor([[0, 5]] * 4)))
    with pytest.raises(RequestError, match="this teacher gives some classes alone; leave common_classes out"):
        distiller.prepare(batch, teacher)


def test_more_common_classes_than_there_are_is_refused() -> None:
    batch = Batch(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    distiller = Distiller(nn.Identity(), [Term(losses.kd)], common_classes=7)
    with pytest.raises(RequestError, match="common_classes must lie between 1 and 6, not 7"):
        distiller.prepare(batch, TeacherOutput(torch.randn(4, 9)))
