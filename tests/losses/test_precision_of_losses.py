"""Losses compute in fp32, whoever wrote them, unless they are marked."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import (
    Batch,
    ClassWise,
    Distiller,
    MeanTeacher,
    MutualDistiller,
    SelfDistiller,
    TeacherOutput,
    Term,
    losses,
)
from limbeck.distillers import Scheme
from limbeck.models.networks.multi_exit import Exits
from limbeck.tasks import Classification

LARGE = Batch(torch.full((4, 3), 100.0), torch.tensor([0, 1, 2, 0]), torch.arange(4))
calls: list[tuple[torch.dtype, bool]] = []


def seen(student: Tensor, other: Tensor) -> Tensor:
    """A loss that notes the dtype of its first tensor and whether autocast is on."""
    calls.append((student.dtype, torch.is_autocast_enabled("cpu")))
    return (student @ student.T).square().mean()


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3))


class TwoExits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.early, self.late = nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Exits:
        h = self.body(x)
        return Exits((self.late(h), self.early(h)), (h, h))


SCHEMES: dict[str, Callable[[Any], Scheme]] = {
    "offline": lambda task: Distiller(network(), task=Classification(loss=task)),
    "class-wise": lambda task: ClassWise(network(), task=Classification(loss=task)),
    "mutual": lambda task: MutualDistiller([network(), network()], task=Classification(loss=task)),
    "mean-teacher": lambda task: MeanTeacher(network(), [Term(losses.kd)], task=Classification(loss=task)),
    "self": lambda task: SelfDistiller(TwoExits(), task=Classification(loss=task), hint_weight=0),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_schemes_task_loss_is_in_fp32_under_autocast(name: str) -> None:
    scheme = SCHEMES[name](seen)
    with torch.autocast("cpu", torch.bfloat16):
        step = scheme(LARGE)
    assert calls
    assert set(calls) == {(torch.float32, False)}
    assert step.loss.dtype == torch.float32


@pytest.mark.parametrize("name", SCHEMES)
def test_a_task_loss_that_says_otherwise_runs_in_autocast(name: str) -> None:
    scheme = SCHEMES[name](losses.own_precision(seen))
    with torch.autocast("cpu", torch.bfloat16):
        scheme(LARGE)
    assert set(calls) == {(torch.bfloat16, True)}


def test_a_term_of_ones_own_is_in_fp32_and_its_adapter_in_autocast() -> None:
    distiller = Distiller(network(), [Term(seen, student="0", teacher="0", adapter="linear")], task_weight=0)
    teacher_output = TeacherOutput(None, {"0": torch.rand(4, 5)})
    distiller.prepare(LARGE, teacher_output)
    calls.clear()
    inside: list[torch.dtype] = []
    distiller.terms["seen"].adapters[0].register_forward_hook(lambda m, i, out: inside.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        value = distiller(LARGE, teacher_output).parts["seen"]
    assert inside == [torch.bfloat16]
    assert calls == [(torch.float32, False)]
    h = distiller.student[0](LARGE.inputs).bfloat16()
    adapted = distiller.terms["seen"].adapters[0].bfloat16()(h).double().detach()
    torch.testing.assert_close(value.double(), (adapted @ adapted.T).square().mean(), rtol=0.02, atol=0)


class Module(nn.Module):
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return seen(student, teacher)


class Marked(nn.Module):
    @losses.own_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return seen(student, teacher)


@losses.own_precision
class MarkedClass(Module):
    pass


class InHalf(Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3).bfloat16()


@pytest.mark.parametrize(
    ("loss", "as_it_comes"),
    [
        (seen, False),
        (partial(seen), False),
        (Module(), False),
        (losses.own_precision(seen), True),
        (partial(losses.own_precision(seen)), True),
        (losses.own_precision(Module()), True),
        (Marked(), True),
        (MarkedClass(), True),
        (InHalf(), True),  # its layers take nothing else
    ],
    ids=range(9),
)
def test_what_marks_a_loss(loss: Any, as_it_comes: bool) -> None:
    half = TeacherOutput(torch.rand(4, 3).bfloat16())
    distiller = Distiller(network().bfloat16(), [Term(loss, name="own")], task_weight=0)
    distiller(LARGE._replace(inputs=LARGE.inputs.bfloat16()), half)
    assert calls == [(torch.bfloat16 if as_it_comes else torch.float32, False)]
    calls.clear()
    distiller.float()
    with torch.autocast("cpu", torch.bfloat16):
        distiller(LARGE, half)
    assert calls[0][1] is (as_it_comes and not isinstance(loss, InHalf))  # whose layer is in fp32 now


def test_a_mark_is_not_left_on_torchs_own_function() -> None:
    marked = losses.own_precision(F.mse_loss)
    assert marked is not F.mse_loss
    assert not hasattr(F.mse_loss, "own_precision")


def test_tuples_of_taps_are_cast_too_and_float64_stays() -> None:
    dtypes: list[torch.dtype] = []

    def pair(student: tuple[Tensor, Tensor], teacher: tuple[()]) -> Tensor:
        dtypes.extend(x.dtype for x in student)
        return student[0].sum() + student[1].sum()

    for dtype, wide in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        distiller = Distiller(network().to(dtype), [Term(pair, student=("0", "logits"), teacher=())])
        step = distiller(LARGE._replace(inputs=LARGE.inputs.to(dtype)))
        assert dtypes == [wide, wide]
        assert step.loss.dtype == wide
        dtypes.clear()


def test_the_right_value_where_half_precision_overflows() -> None:
    def square(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()  # 1000² is beyond fp16

    student = nn.Identity()
    batch = Batch(torch.full((2, 3), 1000.0, dtype=torch.float16), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    distiller = Distiller(student, [Term(square)], task_weight=0)
    assert distiller(batch, TeacherOutput(torch.zeros(2, 3, dtype=torch.float16))).loss.item() == 1e6


@pytest.mark.parametrize("name", losses.LOSSES)
def test_limbecks_losses_see_to_it_themselves(name: str) -> None:
    sees_to_it = importlib.import_module("limbeck.losses.precision").keeps_precision
    loss = getattr(losses, name)
    assert sees_to_it(loss.forward if isinstance(loss, type) else loss)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
def test_float64_beside_fp32_is_computed_in_float64(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    student, teacher = (torch.randn(4, 3, dtype=dtype) for dtype in dtypes)
    leaf = student.clone().requires_grad_()
    losses.mse(leaf, teacher).sum().backward()
    wide = student.double().requires_grad_()
    losses.mse(wide, teacher.double()).sum().backward()
    torch.testing.assert_close(leaf.grad, wide.grad.to(leaf.dtype))
