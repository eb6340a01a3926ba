"""Which part of what a model returns is its output, said once to the task, holds wherever `fit` reads a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from limbeck import (
    Distiller,
    FunctionTeacher,
    Hardware,
    MeanTeacher,
    ModuleTeacher,
    MutualDistiller,
    RequestError,
    Run,
    Term,
    evaluate,
    fit,
    losses,
)
from limbeck.distillers import ClassWise
from limbeck.tasks import Classification, Embedding, Task

X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(5)), torch.arange(16) % 3
HINT = Term(losses.mse, student="body", teacher="body", adapter="auto")
SCORES = Classification(output="scores")


class Net(nn.Module):
    """Two tensors by name, neither called logits."""

    def __init__(self, width: int = 5, name: str = "scores") -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.name = name

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        return {"h": h, self.name: self.head(h.relu())}


class Returning(nn.Module):
    """What is made of its logits."""

    def __init__(self, made: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.made = nn.Linear(4, 3), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.body(x))


@dataclass
class Record:
    first: Tensor
    score: Tensor


class Own(Classification):
    """A task that finds the output itself."""

    def output(self, raw: Any, classes: int | None = None) -> Tensor:
        return super().output(raw["scores"] if isinstance(raw, dict) else raw, classes)


def train(scheme: Any, **options: Any) -> Run:
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    given: dict[str, Any] = {"epochs": 1, "optimizer": partial(torch.optim.SGD, lr=0.1), "progress": False}
    return fit(scheme, loader, hardware=Hardware("cpu"), **given | options)


def expected(student: Net, teacher: Net) -> Tensor:
    """The head's weights after one step of a plain loop on both losses."""
    plain = copy.deepcopy(student)
    scores = plain(X)["scores"]
    soft = teacher(X)[teacher.name].detach().softmax(-1)
    loss = F.cross_entropy(scores, Y) + F.kl_div(scores.log_softmax(-1), soft, reduction="batchmean")
    loss.backward()
    weight = plain.head.weight
    assert weight.grad is not None
    return (weight - 0.1 * weight.grad).detach()


@pytest.mark.parametrize("task", [SCORES, Classification(output=lambda out: out["scores"]), Own()])
@pytest.mark.parametrize("kind", ["module", "function", "numpy"])
def test_the_task_decides_for_student_and_teacher(task: Task, kind: str) -> None:
    student, teacher = Net(), Net(7)
    wanted = expected(student, teacher)
    given: Any = {
        "module": teacher,
        "function": lambda x: teacher(x),
        "numpy": lambda x: {name: value.numpy() for name, value in teacher(x).items()},
    }[kind]
    loader = DataLoader(TensorDataset(X, Y), batch_size=8)
    scheme = Distiller(student, [Term(losses.kd, temperature=1.0)], task=task)
    run = train(scheme, teacher=given, val=loader, val_teacher=given)
    torch.testing.assert_close(student.head.weight.detach(), wanted)
    assert run.metrics[0]["val_accuracy"] == evaluate(student, loader, task=task).score
    assert 0 <= run.metrics[0]["val_agreement"] <= 1


@pytest.mark.parametrize(
    "scheme",
    [
        lambda: Distiller(Net(), task=SCORES),
        lambda: Distiller(Net(), [HINT], task=SCORES),
        lambda: MeanTeacher(Net(), [Term(losses.kd)], task=SCORES),
        lambda: MutualDistiller([Net(), Net()], task=SCORES),
        lambda: ClassWise(Net(), task=SCORES),
        lambda: Distiller(Net(name="embedding"), [Term(losses.mse)], task_weight=0, task=Embedding(output="embedding")),
    ],
)
def test_every_scheme_reads_it(scheme: Any) -> None:
    made = scheme()
    taught = getattr(made, "terms", ()) and not isinstance(made, MeanTeacher)
    teacher = Net(7, name=made.student.name) if taught else None
    before = made.student.head.weight.detach().clone()
    run = train(made, teacher=teacher, val=DataLoader(TensorDataset(X, Y), batch_size=8))
    assert not torch.equal(run.student.head.weight, before)


def test_a_teacher_may_have_an_output_of_its_own() -> None:
    """Its logits serve where it has no part of the student's name; another part is said to the teacher."""
    cases: list[tuple[str, Any]] = [("logits", None), ("z", ModuleTeacher), ("z", FunctionTeacher)]
    for name, wrapped in cases:
        student, teacher = Net(), Net(7, name=name)
        wanted = expected(student, teacher)
        given: Any = teacher if wrapped is None else wrapped(teacher, output=name)
        train(Distiller(student, [Term(losses.kd, temperature=1.0)], task=SCORES), teacher=given)
        torch.testing.assert_close(student.head.weight.detach(), wanted)


def test_another_output_is_another_teacher() -> None:
    net = Net()
    choices: list[Any] = [None, "h", "scores", lambda out: out["h"]]
    prints = {ModuleTeacher(net, output=choice).fingerprint for choice in choices}
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("scheme", "teacher", "words"),
    [
        (lambda: Distiller(Net()), None, r"the student returns no logits but a mapping of h, scores.*task=.*\(output="),
        (
            lambda: Distiller(Net(), task=Classification(output="z")),
            None,
            "the student returns a mapping of h, scores, which has no output 'z'.*output=",
        ),
        (
            lambda: Distiller(Net(), task=Classification(output=lambda out: out["z"])),
            None,
            r"the student returns .* which the function output= does not take \(KeyError: 'z'\)",
        ),
        (
            lambda: Distiller(nn.Linear(4, 3), [Term(losses.kd)]),
            ModuleTeacher(Net(), output="z"),
            "the teacher returns a mapping of h, scores, which has no output 'z'.*ModuleTeacher",
        ),
        (
            lambda: Distiller(nn.Linear(4, 3), [Term(losses.kd)]),
            Returning(lambda z: None),
            "the teacher returns no logits but None; say",
        ),
        (lambda: Distiller(Returning(lambda z: Record(z, z))), None, "but a value of type Record of first, score; say"),
        (
            lambda: Distiller(nn.Linear(4, 3), [Term(losses.kd)]),
            Returning(torch.mean),
            r"the teacher gives outputs of shape \(\) for 16 samples",
        ),
        (
            lambda: Distiller(Returning(lambda z: (z.detach().repeat(1, 2), z))),
            None,
            r"no gradient: .*the student returns a tuple of 2 elements; element 0, of shape \(8, 6\), is taken",
        ),
        (
            lambda: Distiller(nn.Linear(4, 3), [Term(losses.mse, student="2", teacher="0")]),
            nn.Linear(4, 3),
            r"unknown tap of the student \(Linear\) '2'",
        ),
        (
            lambda: Distiller(nn.Sequential(nn.Linear(4, 3)), [Term(losses.mse, student="0", teacher="2")]),
            nn.Sequential(nn.Linear(4, 3)),
            r"unknown tap of the teacher \(Sequential\) '2'",
        ),
        (lambda: Distiller(Net(), [Term(losses.kd)], task=SCORES), Net(name="z"), r"ModuleTeacher\(teacher, output="),
        (lambda: Distiller(nn.Linear(4, 3), [Term(losses.kd)]), Net().forward, "FunctionTeacher.*output='h'"),
    ],
)
def test_the_error_names_the_remedy(scheme: Any, teacher: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        train(scheme(), teacher=teacher)


def test_what_was_chosen_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    def pair() -> Returning:
        return Returning(lambda z: (z, 2 * z))

    train(Distiller(pair(), [Term(losses.kd)]), teacher=pair())
    said = capsys.readouterr().err
    assert all(f"the {who} returns a tuple of 2 elements; element 0" in said for who in ("student", "teacher"))
    task = Classification(output=1)
    for teacher in (ModuleTeacher(pair(), output=1), FunctionTeacher(pair().forward, output=1)):
        train(Distiller(pair(), [Term(losses.kd)], task=task), teacher=teacher)
        assert "returns a tuple" not in capsys.readouterr().err


@pytest.mark.parametrize("output", [True, 1.5, ["scores"]])
def test_what_names_no_output_is_refused(output: Any) -> None:
    makers = (Classification, partial(ModuleTeacher, Net()), partial(FunctionTeacher, Net().forward))
    for make in makers:
        with pytest.raises(RequestError, match="output is a field's name, a position or a function, not"):
            make(output=output)


def test_of_heads_the_chosen_one_is_trained() -> None:
    """The student returns a tuple in training alone: nobody guesses which head is meant once that was said."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return (self.first(x), self.second(x)) if self.training else self.second(x)

    student = Two()
    before = student.first.weight.detach().clone(), student.second.weight.detach().clone()
    train(Distiller(student, task=Classification(output=1)))
    assert torch.equal(student.first.weight, before[0])
    assert not torch.equal(student.second.weight, before[1])
