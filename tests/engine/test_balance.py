"""How strongly each loss pulls at the student on the first batch, against gradients computed one by one."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import Batch, Distiller, MeanTeacher, TeacherOutput, Term, fit, losses
from limbeck.compare import compare
from limbeck.data import InMemory, make_loader
from limbeck.distillers import ramp
from limbeck.engine.first.balance import balance, in_words
from limbeck.recipes.read import check
from limbeck.runs.cost.estimate import plan
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.seeds import random_state
from limbeck.tasks import Regression

QUIET = Machine(accelerator="cpu", progress=False)
LOUD = Machine(accelerator="cpu", progress=True)
SMALL: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [16], "epochs": 1},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 2.0}]},
    "epochs": 1,
}


class Nothing:
    """An autocast that is off."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def student() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.0), nn.Linear(6, 3))


def data() -> tuple[Batch, TeacherOutput]:
    rng = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(12, 4, generator=rng), torch.arange(12) % 3, torch.arange(12))
    return batch, TeacherOutput(3 * torch.randn(12, 3, generator=rng), {"hint": torch.randn(12, 6, generator=rng)})


def test_each_gradient_is_that_of_the_loss_alone_on_the_weights_that_both_reach() -> None:
    batch, teacher_output = data()
    net = student()
    terms = [Term(losses.kd, weight=ramp(20, 2.0)), Term(losses.mse, weight=3.0, student="0", teacher="hint")]
    distiller = Distiller(net, terms, task_weight=0.5)
    distiller.prepare(batch, teacher_output)
    found = {pull.name: pull for pull in balance(distiller, batch, teacher_output, Nothing, 30)}

    def norms(part: Any) -> list[Tensor]:
        own = copy.deepcopy(net).train()
        hidden = own[0](batch.inputs)
        part(own[1:](hidden), hidden).backward()
        return [p.grad for p in own.parameters() if p.grad is not None]

    def norm(gradients: list[Tensor]) -> float:
        return float(torch.cat([g.flatten() for g in gradients]).norm())

    task = norms(lambda z, h: 0.5 * F.cross_entropy(z, batch.targets))
    kd = norms(
        lambda z, h: (
            2.0 * 16 * F.kl_div((z / 4).log_softmax(1), (teacher_output.output / 4).softmax(1), reduction="batchmean")
        )
    )
    hint = norms(lambda z, h: 3.0 * F.mse_loss(h, teacher_output.features["hint"]))
    assert found["task"].gradient == pytest.approx(norm(task), rel=1e-4)
    assert found["task"].share == 1
    assert found["kd"].weight == 2.0  # the ramp is over
    assert found["kd"].share == pytest.approx(norm(kd) / norm(task), rel=1e-4)
    # The hint reaches the first layer's weight and bias alone.
    assert len(hint) == 2
    assert found["mse"].share == pytest.approx(norm(hint) / norm(task[:2]), rel=1e-4)
    assert in_words(list(found.values())).count("its gradient") == 2


def test_nothing_of_the_student_changes() -> None:
    batch, teacher_output = data()
    distiller = Distiller(student(), [Term(losses.kd)])
    distiller.prepare(batch, teacher_output)
    distiller.student[4].weight.grad = torch.ones(3, 6)
    before, random = copy.deepcopy(distiller.state_dict()), random_state()
    modes = [module.training for module in distiller.modules()]
    balance(distiller, batch, teacher_output, Nothing, 1)
    for name, value in distiller.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(distiller.student[4].weight.grad, torch.ones(3, 6))
    assert modes == [module.training for module in distiller.modules()]
    torch.testing.assert_close(random_state(), random, rtol=0, atol=0, equal_nan=True)
    assert distiller.epoch == 0


@pytest.mark.parametrize(
    ("weight", "said"), [(1e5, "smaller"), (1e-5, "larger"), (1.0, None), (float("inf"), "not finite")]
)
def test_a_term_far_from_the_task_loss_is_warned_of(weight: float, said: str | None) -> None:
    batch, teacher_output = data()
    distiller = Distiller(student(), [Term(losses.kd, weight=weight)])
    warning = balance(distiller, batch, teacher_output, Nothing, 1)[1].warning
    assert (warning is None) if said is None else (warning is not None and said in warning)


def test_a_loss_of_classes_on_one_value_is_said_to_be_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    data = [(torch.randn(8, 4), torch.randn(8))]
    scheme = Distiller(nn.Linear(4, 1), [Term(losses.kd)], task=Regression())
    fit(scheme, data, teacher=nn.Linear(4, 1), epochs=1, optimizer=partial(torch.optim.SGD, lr=0.1), progress=False)
    assert "kd: 0 on the first batch: the student answers as its teacher there, or" in capsys.readouterr().err


def test_without_terms_a_teacher_or_a_task_there_is_nothing_to_compare() -> None:
    batch, teacher_output = data()
    assert balance(Distiller(student()), batch, None, Nothing, 1) == ()
    assert balance(MeanTeacher(student(), [Term(losses.kd)]), batch, None, Nothing, 1) == ()
    (alone,) = balance(
        Distiller(student(), [Term(losses.kd, weight=1e6)], task_weight=0), batch, teacher_output, Nothing, 1
    )
    assert (alone.share, alone.warning) == (None, None)


def test_fit_says_it_in_one_line_and_gives_it(blobs: InMemory, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = nn.Linear(4, 3)
    made = partial(torch.optim.SGD, lr=0.01)

    def trained(weight: float, **options: Any) -> Any:
        terms = [Term(losses.kd, weight=weight)]
        return fit(
            Distiller(nn.Linear(4, 3), terms),
            make_loader(blobs, 16),
            teacher=teacher,
            epochs=1,
            optimizer=made,
            **options,
        )

    shown = trained(1.0)
    assert [pull.name for pull in shown.balance] == ["task", "kd"]
    assert capsys.readouterr().err.count("weighted losses on the first batch: task") == 1
    assert trained(1e6, progress=False).balance[1].share > 100
    err = capsys.readouterr().err
    assert "student: kd: on the first batch its gradient is" in err
    assert "weighted losses" not in err
    assert trained(1e6, progress=False, measure_balance=False).balance == ()
    assert "kd" not in capsys.readouterr().err


def test_a_comparison_says_it_once_for_all_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = check(SMALL | {"distill": {"task_weight": 0.1, "terms": [{"loss": "kd", "weight": 1e4}]}})
    compare(recipe, ["recipe"], [0, 1], root=tmp_path, out=tmp_path / "out", machine=LOUD)
    err = capsys.readouterr().err
    assert err.count("weighted losses on the first batch") == 1
    assert err.count("kd: on the first batch its gradient is") == 1


def test_a_plan_shows_it_and_whether_the_teacher_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    recipe = check(SMALL)
    before = plan(recipe, root=tmp_path, machine=QUIET)
    assert before["teacher_trained"] is False
    assert [pull["name"] for pull in before["balance"]] == ["task", "kd"]
    run(recipe, root=tmp_path, out=tmp_path / "run", baseline=False, machine=QUIET)
    after = plan(recipe, root=tmp_path, machine=QUIET)
    assert after["teacher_trained"] is True
    assert after["balance"][1]["loss"] != before["balance"][1]["loss"]
