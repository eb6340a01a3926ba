"""What the table of losses does not see: parameters trained against the student, or shared with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference as ref
import torch
from torch import nn

from limbeck import Batch, Distiller, TeacherOutput, Term, losses
from limbeck.errors import RequestError

STUDENT, TEACHER = 2 * np.random.default_rng(0).normal(size=(2, 4, 6))
TARGETS = torch.tensor([0, 3, 5, 1])


class Logits(nn.Module):
    """A student that answers with its parameters."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.values + 0 * inputs.sum()


@pytest.mark.parametrize(("epoch", "strength"), [(0, (1 - math.cos(math.pi / 10)) / 2), (4, 0.5), (9, 1.0), (60, 1.0)])
def test_ctkd_raises_the_loss_by_its_temperature(epoch: int, strength: float) -> None:
    """θ has the gradient of the loss, reversed and weaker in the first epochs; the student has its own."""
    student = Logits(STUDENT)
    distiller = Distiller(student, [Term(losses.CTKD)], task_weight=0.0)
    batch, output = Batch(torch.zeros(4, 1), TARGETS, torch.arange(4)), TeacherOutput(torch.tensor(TEACHER))
    distiller.prepare(batch, output)
    distiller.double()
    distiller.at(epoch)
    distiller(batch, output).loss.backward()
    ((name, theta),) = [item for item in distiller.named_parameters() if item[0] != "student.values"]
    assert name.endswith("theta")

    def value(moved: float, off: float = 0.0) -> float:
        student = STUDENT.copy()
        student[0, 0] += off
        return float(ref.ctkd(student, TEACHER, epoch=epoch, state={"theta": np.array(1 + moved)}).mean())

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert slope > 0
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(-strength * slope, rel=1e-6)
    assert student.values.grad is not None
    of_student = (value(0, 1e-5) - value(0, -1e-5)) / 2e-5
    assert student.values.grad[0, 0].item() == pytest.approx(of_student, rel=1e-6)


def test_a_function_of_ones_own_is_told_the_epoch() -> None:
    def later(student: torch.Tensor, teacher: torch.Tensor, *, epoch: int) -> torch.Tensor:
        return 0 * student.sum() + epoch

    distiller = Distiller(Logits(STUDENT), [Term(later)], task_weight=0.0)
    distiller.at(7)
    batch = Batch(torch.zeros(4, 1), TARGETS, torch.arange(4))
    assert distiller(batch, TeacherOutput(torch.tensor(TEACHER))).loss.item() == 7
    with pytest.raises(RequestError, match="epoch"):
        Term(later, epoch=3)


def test_ttm_is_kd_whose_temperature_the_teacher_has_alone() -> None:
    """Its weight is all that WTTM adds: the sum of the powers 1/T of the teacher's probabilities."""
    s, t = torch.tensor(STUDENT), torch.tensor(TEACHER)
    ttm = losses.kd(s, t, temperature=1.0, teacher_temperature=5.0, scale=False)
    powers = torch.tensor(ref.softmax(TEACHER) ** 0.2).sum(1)
    torch.testing.assert_close(losses.wttm(s, t, temperature=5.0), powers * ttm)


@pytest.mark.parametrize("channels", [(3, 5), (5, 3), (4, 4)])
def test_vkds_projection_stays_orthogonal_while_it_learns_a_rotation(channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    loss = losses.VkD(*channels).double()
    student, teacher = (torch.randn(16, n, dtype=torch.float64) for n in channels)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    before = loss(student, teacher).mean().item()
    start = loss.projection(torch.float64)
    for _ in range(30):
        optimizer.zero_grad()
        loss(student, teacher).mean().backward()
        optimizer.step()
    learned = loss.projection(torch.float64).detach()
    smaller = learned if channels[0] > channels[1] else learned.T
    # The start is made in fp32.
    torch.testing.assert_close(smaller @ smaller.T, torch.eye(min(channels)).double(), rtol=0, atol=1e-6)
    assert loss(student, teacher).mean().item() < before - 1e-3
    assert (learned - start).abs().max() > 0.05


def maps() -> tuple[torch.Tensor, torch.Tensor, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 8, 8), torch.randn(4, 5, 4, 4)
    return student, teacher, nn.Linear(3, 6), nn.Linear(5, 6).requires_grad_(False)


def test_sdd_at_scale_1_is_kd_of_the_logits_and_trains_the_classifier() -> None:
    student, teacher, of_student, of_teacher = maps()
    classifiers = {"student_classifier": of_student, "teacher_classifier": of_teacher}
    value = losses.sdd(student, teacher, targets=TARGETS, scales=(1,), **classifiers)
    logits = of_student(student.mean((2, 3))), of_teacher(teacher.mean((2, 3)))
    torch.testing.assert_close(value, losses.kd(*logits, temperature=4.0))
    losses.sdd(student, teacher, targets=TARGETS, **classifiers).sum().backward()
    assert of_student.weight.grad is not None
    assert of_student.weight.grad.abs().sum() > 0


def test_sdd_needs_labels_and_options_that_it_knows() -> None:
    student, teacher, of_student, of_teacher = maps()
    classifiers = {"student_classifier": of_student, "teacher_classifier": of_teacher}
    unlabelled = losses.sdd(student, teacher, targets=torch.tensor([0, -100, 5, -100]), **classifiers)
    assert unlabelled.ne(0).tolist() == [True, False, True, False]
    with pytest.raises(RequestError, match="unknown base of sdd 'nkd'"):
        losses.sdd(student, teacher, targets=TARGETS, base="nkd", **classifiers)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="scales of 1 or more"):
        losses.sdd(student, teacher, targets=TARGETS, scales=(), **classifiers)


def test_catkd_leaves_the_bias_out() -> None:
    student, teacher, of_student, of_teacher = maps()
    before = losses.catkd(student, teacher, student_classifier=of_student, teacher_classifier=of_teacher)
    with torch.no_grad():
        of_student.bias += 3.0
    after = losses.catkd(student, teacher, student_classifier=of_student, teacher_classifier=of_teacher)
    assert torch.equal(before, after)
