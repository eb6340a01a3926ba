from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import Batch, Distiller, ModuleTeacher, TeacherOutput, Term, losses, ramp
from limbeck.errors import RequestError


def batch(n: int = 5) -> Batch:
    return Batch(torch.randn(n, 4), torch.arange(n) % 3, torch.arange(n))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_loss_is_the_weighted_sum_of_its_parts(student: nn.Module) -> None:
    data = batch()
    # Far apart: in fp32 a tiny KL is mostly rounding.
    teacher_output = TeacherOutput(20 * torch.randn(5, 3))
    distiller = Distiller(student, [Term(losses.kd, weight=0.7, temperature=7, scale=False)], task_weight=0.3).eval()
    step = distiller(data, teacher_output)

    z_s, z_t = (x.detach().double().numpy() for x in (step.output, teacher_output.output))
    p_s, p_t = softmax(z_s / 7), softmax(z_t / 7)
    kl = (p_t * np.log(p_t / p_s)).sum(-1).mean()
    ce = -np.log(softmax(z_s)[np.arange(5), data.targets]).mean()
    assert step.parts["kd"].item() == pytest.approx(kl, rel=1e-5)
    assert step.parts["task"].item() == pytest.approx(ce, rel=1e-5)
    assert step.loss.item() == pytest.approx(0.3 * ce + 0.7 * kl, rel=1e-5)


def test_a_weight_of_zero_leaves_the_other_terms_alone(student: nn.Module, teacher: nn.Module) -> None:
    data = batch()
    teacher_output = ModuleTeacher(teacher)(data)
    alone = Distiller(student).eval()(data)
    zero = Distiller(student, [Term(losses.kd, weight=0.0)]).eval()(data, teacher_output)
    torch.testing.assert_close(zero.loss, alone.loss)


def test_without_task_weight_no_labels_are_read(student: nn.Module, teacher: nn.Module) -> None:
    data = batch()._replace(targets=torch.full((5,), 999))
    distiller = Distiller(student, [Term(losses.kd)], task_weight=0)
    teacher_output = ModuleTeacher(teacher)(data)
    distiller.prepare(data, teacher_output)
    assert set(distiller(data, teacher_output).parts) == {"kd"}


def test_adapter_is_sized_trained_and_saved(student: nn.Module, teacher: nn.Module) -> None:
    data = batch()
    term = Term(losses.mse, student="0", teacher="0", adapter="auto")
    distiller = Distiller(student, [term])
    guide = ModuleTeacher(teacher, distiller.teacher_taps)
    with pytest.raises(RequestError, match=r"call prepare\(batch, teacher_output\)"):
        distiller(data, guide(data))
    distiller.prepare(data, guide(data))
    names = [name for name, _ in distiller.named_parameters() if not name.startswith("student.")]
    assert names == ["terms.mse.adapters.0.weight", "terms.mse.adapters.0.bias"]
    distiller(data, guide(data)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in distiller.named_parameters() if n in names)
    assert set(names) <= set(distiller.state_dict())


def test_two_distillers_made_from_one_term_share_nothing(student: nn.Module, teacher: nn.Module) -> None:
    term = Term(losses.mse, student="0", teacher="0", adapter=nn.Linear(6, 16))
    data = batch()
    made = [Distiller(copy.deepcopy(student), [term]) for _ in range(2)]
    teacher_output = ModuleTeacher(teacher, ["0"])(data)
    for distiller in made:
        distiller.prepare(data, teacher_output)
    before = copy.deepcopy(made[1].state_dict())
    optimizer = torch.optim.SGD(made[0].parameters(), lr=1.0)
    made[0](data, teacher_output).loss.backward()
    optimizer.step()
    for name, value in made[1].state_dict().items():
        torch.testing.assert_close(value, before[name])
    assert not any(p.requires_grad and p.grad is not None for p in made[1].parameters())


def test_prepare_leaves_the_student_as_it_is(teacher: nn.Module) -> None:
    student = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).train()
    before = copy.deepcopy(student.state_dict())
    data = batch()
    Distiller(student, [Term(losses.kd)]).prepare(data, ModuleTeacher(teacher)(data))
    assert student.training
    for name, value in student.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_terms_of_one_loss_are_told_apart(student: nn.Module, teacher: nn.Module) -> None:
    terms = [Term(losses.mse, student=s, teacher="0", adapter="auto") for s in ("0", "2")]
    distiller = Distiller(student, terms)
    data = batch()
    teacher_output = ModuleTeacher(teacher, ["0"])(data)
    distiller.prepare(data, teacher_output)
    assert list(distiller(data, teacher_output).parts) == ["task", "mse:0", "mse:2"]


def test_weights_follow_a_schedule_over_epochs(student: nn.Module, teacher: nn.Module) -> None:
    distiller = Distiller(student, [Term(losses.kd, weight=ramp(4, 8.0))], task_weight=0).eval()
    data = batch()
    teacher_output = ModuleTeacher(teacher)(data)
    ratios = []
    for epoch in (0, 1, 3, 9):
        distiller.at(epoch)
        step = distiller(data, teacher_output)
        ratios.append((step.loss / step.parts["kd"]).item())
    assert ratios == pytest.approx([2, 4, 8, 8])


def test_a_loss_gets_targets_and_index_where_it_asks(student: nn.Module) -> None:
    seen: dict[str, Any] = {}

    def own(student: Tensor, teacher: Tensor, *, targets: Tensor, index: Tensor) -> Tensor:
        seen.update(targets=targets, index=index)
        return (student - teacher).square().mean()

    data = batch()
    Distiller(student, [Term(own)])(data, TeacherOutput(torch.randn(5, 3)))
    assert seen["targets"] is data.targets
    assert seen["index"] is data.index


def test_a_tuple_of_taps_reaches_the_loss_as_a_tuple(student: nn.Module, teacher: nn.Module) -> None:
    def widths(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        assert [x.shape[1] for x in student] == [16, 3]
        return sum(((s - t).square().mean() for s, t in zip(student, teacher, strict=True)), torch.zeros(()))

    data = batch()
    distiller = Distiller(student, [Term(widths, student=("0", "3"), teacher=("0", "4"), adapter="auto")])
    teacher_output = ModuleTeacher(teacher, ["0", "4"])(data)
    distiller.prepare(data, teacher_output)
    distiller(data, teacher_output)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Term(losses.kd, temprature=4), "unknown option of loss kd 'temprature'; did you mean temperature"),
        (lambda: Term(losses.kd, targets=1), "unknown option of loss kd 'targets'"),
        (lambda: Term(losses.mse, adapter="conv9"), "unknown adapter 'conv9'"),
        (lambda: Term(losses.mse, student=("a", "b"), adapter="auto"), "do not pair up"),
        (lambda: Term("kd"), "a loss is a function"),
        (
            lambda: Distiller(nn.Linear(4, 3), [Term(losses.mse, student="fc")]),
            r"unknown tap of the student .* 'fc'",
        ),
        (lambda: Distiller(nn.Linear(4, 3), task_weight=0), "nothing to learn"),
    ],
)
def test_wrong_requests_are_refused_when_made(make: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make()


@pytest.mark.parametrize(
    ("term", "teacher_output", "message"),
    [
        (Term(losses.kd), TeacherOutput(torch.randn(5, 7)), "the teacher knows 7 classes and the student 3"),
        (Term(losses.kd), None, "the terms kd need a teacher"),
        (Term(losses.mse, teacher="layer4"), TeacherOutput(torch.randn(5, 3), {"layer3": torch.randn(5, 3)}), "layer3"),
        (
            Term(losses.mse, student="0", teacher="f"),
            TeacherOutput(None, {"f": torch.randn(5, 9)}),
            r"\(5, 6\).*\(5, 9\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    student: nn.Module, term: Term, teacher_output: TeacherOutput | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        Distiller(student, [term]).prepare(batch(), teacher_output)


def test_labels_out_of_range_are_refused(student: nn.Module) -> None:
    with pytest.raises(RequestError, match="label 3 is out of range: the student has 3 classes"):
        Distiller(student).prepare(batch()._replace(targets=torch.tensor([0, 1, 2, 3, 0])), None)


@pytest.mark.parametrize("given", [5, None, "resnet18"], ids=repr)
def test_what_is_no_network_neither_learns_nor_teaches(given: Any) -> None:
    with pytest.raises(RequestError, match=r"a student is a torch\.nn\.Module, not"):
        Distiller(given)
    with pytest.raises(RequestError, match=r"a teacher's module is a torch\.nn\.Module, not"):
        ModuleTeacher(given)


@pytest.mark.parametrize("given", [5, "kd", ["kd"], [losses.kd]], ids=["number", "name", "names", "functions"])
def test_terms_are_a_list_of_terms(student: nn.Module, given: Any) -> None:
    with pytest.raises(RequestError, match="terms is a list, as in Distiller"):
        Distiller(student, given)
