"""A term may be any function of the user's over named tensors of both models: of modules and of operations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Batch, Distiller, Hardware, ModuleTeacher, Term, fit
from limbeck.data import InMemory, make_loader
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run


class Two(nn.Module):
    """Two hidden layers and a sum between them that no module gives."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(F.relu(self.second(h) + h))


def own(
    student: tuple[Tensor, Tensor, Tensor], teacher: tuple[Tensor, Tensor], *, targets: Tensor, margin: float = 0.0
) -> Tensor:
    """Squared gap of two mean activations, and of the logits at the label."""
    first, added, logits = student
    other, said = teacher
    gap = first.mean(1) + added.mean(1) - other.mean(1) - margin
    of_label = (logits - said).gather(1, targets[:, None])[:, 0]
    return gap.square() + of_label.square()


def test_a_function_of_tensors_of_both_models() -> None:
    student, teacher = Two(5).eval(), Two(7).eval()
    batch = Batch(torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6))
    term = Term(own, student=("first", "add", "logits"), teacher=("relu", "logits"), margin=0.5, weight=2.0)
    distiller = Distiller(student, [term])
    assert set(distiller.teacher_taps) == {"relu"}
    teacher_output = ModuleTeacher(teacher, distiller.teacher_taps)(batch)
    distiller.prepare(batch, teacher_output)
    step = distiller(batch, teacher_output)

    x, y = batch.inputs.double().numpy(), batch.targets.numpy()
    weights = [[(m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in model.children()]
               for model in (student, teacher)]  # fmt: skip
    (s1, s2, s3), (t1, t2, t3) = weights
    h = x @ s1[0].T + s1[1]
    added = h @ s2[0].T + s2[1] + h
    logits = added.clip(0) @ s3[0].T + s3[1]
    g = x @ t1[0].T + t1[1]
    relu = (g @ t2[0].T + t2[1] + g).clip(0)
    said = relu @ t3[0].T + t3[1]
    rows = range(6)
    expected = (h.mean(1) + added.mean(1) - relu.mean(1) - 0.5) ** 2 + (logits - said)[rows, y] ** 2
    assert step.parts["own"].item() == pytest.approx(expected.mean(), rel=1e-4)
    step.loss.backward()
    assert student.first.weight.grad is not None
    assert all(p.grad is None for p in teacher.parameters())


def test_functions_of_the_students_tensors_alone_need_no_teacher() -> None:
    def size(student: tuple[Tensor, ...], teacher: tuple[()]) -> Tensor:
        return torch.stack([x.square().mean() for x in student]).sum()

    student = Two(5)
    distiller = Distiller(student, [Term(size, student=("first", "add"), teacher=())])
    batch = Batch(torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6))
    distiller.prepare(batch, None)
    h = student.first(batch.inputs)
    expected = h.square().mean() + (student.second(h) + h).square().mean()
    torch.testing.assert_close(distiller(batch).parts["size"], expected.detach())


def test_torchs_own_functions_are_losses_too() -> None:
    student, teacher = Two(5), Two(5)
    batch = Batch(torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6))
    terms = [Term(F.smooth_l1_loss, student="add", teacher="add", beta=0.5), Term(torch.dist)]
    distiller = Distiller(student, terms)
    teacher_output = ModuleTeacher(teacher, ["add"])(batch)
    distiller.prepare(batch, teacher_output)
    assert set(distiller(batch, teacher_output).parts) == {"task", "smooth_l1_loss", "dist"}


def test_fit_learns_by_it(blobs: InMemory) -> None:
    def towards(student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()

    student, teacher = Two(6), Two(6)
    distiller = Distiller(student, [Term(towards, student="add", teacher="add")], task_weight=0)
    train = make_loader(blobs, 16, shuffle=True)
    adam = partial(torch.optim.Adam, lr=0.02)
    done = fit(distiller, train, teacher=teacher, epochs=8, optimizer=adam, progress=False, hardware=Hardware("cpu"))
    assert done.metrics[-1]["towards"] < 0.2 * done.metrics[0]["towards"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Term(lambda student, teacher, *, scale: student), "missing a required argument: 'scale'"),
        (lambda: Term(lambda student: student), "too many positional arguments"),
        (lambda: Term(own, margn=1.0), "unknown option of loss own 'margn'; did you mean margin"),
    ],
)
def test_calls_that_cannot_work_are_refused_when_made(make: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda student, teacher: 1.0, "gives float instead of a tensor"),
        (lambda student, teacher: {}["a"], "KeyError"),
        (lambda student, teacher: student - teacher[0, :2], "must match"),
    ],
)
def test_a_function_that_fails_is_named_before_the_first_step(function: Any, message: str) -> None:
    batch = Batch(torch.randn(6, 4), torch.arange(6) % 3, torch.arange(6))
    distiller = Distiller(Two(5), [Term(function, name="mine", student="add", teacher="add")])
    with pytest.raises(RequestError, match=f"term mine .*{message}"):
        distiller.prepare(batch, ModuleTeacher(Two(5), ["add"])(batch))


MINE = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.read, self.head = nn.Linear(64, width), nn.Linear(width, 10)

    def forward(self, digit):
        h = self.read(digit.flatten(1))
        return self.head(h.relu() + 1)

def gap(student, teacher, *, targets, power=2):
    (hidden, added), (other, logits) = student, teacher
    assert len(targets) == len(logits)
    return (hidden.mean(1) + added.mean(1) - other.mean(1)).abs().pow(power)
"""


def test_a_recipe_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_gap.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    term = {"loss": "mine_gap:gap", "power": 1, "student": ["read", "add"], "teacher": ["relu", "logits"]}
    recipe = {
        "teacher": {"model": "mine_gap:Pair", "width": 16, "epochs": 1},
        "student": {"model": "mine_gap:Pair", "width": 4},
        "distill": {"task_weight": 1.0, "terms": [term]},
        "epochs": 1,
    }
    quiet = Machine(accelerator="cpu", progress=False)
    result = run(check(recipe), root=tmp_path, out=tmp_path / "run", machine=quiet, baseline=False)
    # Ten classes: result.json has both shares.
    assert result["distilled"]["test_accuracy"] <= result["distilled"]["test"]["top5"] <= 1
    assert '"gap"' in (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(RequestError, match=r"unknown tap of the student \(Pair\) 'ad'"):
        run(check(recipe | {"distill": {"terms": [term | {"student": ["read", "ad"]}]}}), root=tmp_path, machine=quiet)
    with pytest.raises(RequestError, match=r"unknown tap of the teacher \(Pair\) 'add_1'; did you mean add"):
        run(check(recipe | {"distill": {"terms": [term | {"teacher": ["add_1"]}]}}), root=tmp_path, machine=quiet)
