"""Runs and comparisons say what their teacher has to teach, and warn of one that has memorised its training set."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.compare import compare
from limbeck.recipes.read import check
from limbeck.report import write_page
from limbeck.runs.diagnose import diagnose_recipe, temperature
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.teachers import ModuleTeacher
from limbeck.types import Batch, TeacherOutput

QUIET = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"batch_size": 64},
    "teacher": {"model": "mlp", "hidden": [32], "epochs": 8, "optimizer": {"name": "adam", "lr": 0.01}},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"task_weight": 0.5, "terms": [{"loss": "kd", "weight": 0.5, "temperature": 3}]},
    "epochs": 2,
    "optimizer": {"name": "adam", "lr": 0.01},
}
CHANCE = SMALL | {
    "name": "chance",
    "data": {"name": "chance_data:make", "batch_size": 25},
    "teacher": {"model": "mlp", "hidden": [256], "epochs": 60, "optimizer": {"name": "adam", "lr": 0.01}},
}
DATA = """
import torch
from torch.utils.data import TensorDataset

def make():
    generator = torch.Generator().manual_seed(0)
    def part(n):
        return TensorDataset(torch.randn(n, 8, generator=generator), torch.randint(4, (n,), generator=generator))
    return part(200), part(400)
"""


@pytest.fixture
def labels_by_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data with nothing in it to learn but its training labels to memorise."""
    (tmp_path / "chance_data.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_teacher_whose_draws_are_stored_is_diagnosed_by_its_logits(tmp_path: Path) -> None:
    made = SMALL | {"epochs": 1, "distill": {"terms": [{"loss": "kd", "temperature": 1}]}}
    found = []
    for number, store in enumerate(["memory", {"where": str(tmp_path / "draws"), "draws": 4}]):
        teacher = made["teacher"] | {"store": store, "epochs": 1}
        out = tmp_path / f"run{number}"
        found.append(run(check(made | {"teacher": teacher}), root=tmp_path, out=out, machine=QUIET)["diagnosis"])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.usefixtures("labels_by_chance")
def test_a_teacher_that_has_memorised_its_training_set_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(check(CHANCE), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    found = json.loads((tmp_path / "run" / "result.json").read_text())["diagnosis"]
    assert found["memorised"] is True
    assert found["train_accuracy"] > 0.95
    assert found["held_out_accuracy"] < 0.4
    assert found["entropy"] < found["held_out_entropy"] < found["maximum_entropy"]
    assert capsys.readouterr().err == f"limbeck: {found['warning']}\n"

    compared = compare(check(CHANCE), ["kd"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    assert compared["diagnosis"]["train_accuracy"] == found["train_accuracy"]
    assert compared["diagnosis"]["temperature"] == 4  # of kd, which was compared, and not the recipe's 3
    page = write_page(tmp_path / "cmp")
    assert page is not None
    assert html.escape(compared["diagnosis"]["warning"]) in page.read_text()


def test_a_teacher_that_does_as_well_on_new_data_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared = compare(check(SMALL), ["recipe"], [0], root=tmp_path, out=tmp_path / "cmp", machine=QUIET)
    found = json.loads((tmp_path / "cmp" / "compare.json").read_text())["diagnosis"]
    assert found == compared["diagnosis"]
    assert (found["memorised"], found["warning"]) == (False, None)
    assert found["held_out_accuracy"] == compared["teacher"][0]["test_accuracy"]
    assert found["calibration_error"] == pytest.approx(compared["teacher"][0]["test"]["calibration_error"], abs=1e-6)
    assert capsys.readouterr().err == ""
    page = write_page(tmp_path / "cmp")
    assert page is not None
    for figure in (f"{found['train_accuracy']:.4f}", f"{found['entropy']:.2f} of 2.30 nats"):
        assert figure in page.read_text()
    assert '<p class="warning">' not in page.read_text()


def test_held_out_data_is_the_validation_split_where_there_is_one(tmp_path: Path) -> None:
    with_split = SMALL | {"data": {"batch_size": 64, "validation": 0.25}}
    found = diagnose_recipe(check(with_split), root=tmp_path, machine=QUIET)["diagnosis"]
    assert found["held_out"] == "validation"
    assert found["samples"] == 1077  # three quarters of 1,437
    whole = diagnose_recipe(check(SMALL), root=tmp_path, machine=QUIET)["diagnosis"]
    assert (whole["held_out"], whole["samples"]) == ("test", 1437)


def test_the_run_and_the_command_find_the_same(tmp_path: Path) -> None:
    by_run = run(check(SMALL), root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)["diagnosis"]
    alone = diagnose_recipe(check(SMALL), root=tmp_path, machine=QUIET)
    assert alone["teacher"][0]["source"] == "reused"
    for name, value in alone["diagnosis"].items():
        assert by_run[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), name


def test_a_remembered_teacher_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = check(SMALL)
    diagnose_recipe(recipe, root=tmp_path, machine=QUIET)
    asked = 0
    answer = ModuleTeacher.__call__

    def count(teacher: ModuleTeacher, batch: Batch) -> TeacherOutput:
        nonlocal asked
        asked += batch.size
        return answer(teacher, batch)

    monkeypatch.setattr(ModuleTeacher, "__call__", count)
    run(recipe, root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)
    # Every training sample once; the test set for the diagnosis, and for the student's agreement; some examples of two;
    # a batch and its half, whether the teacher is steady.
    assert 0 <= asked - (1437 + 2 * 360) - (64 + 32) <= 10


def test_nobody_is_diagnosed_where_nobody_teaches(tmp_path: Path) -> None:
    alone = SMALL | {"teacher": None, "distill": {"scheme": "mutual"}}
    assert "diagnosis" not in run(check(alone), root=tmp_path, out=tmp_path / "run", machine=QUIET, baseline=False)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([{"loss": "kd", "temperature": 7}], 7),
        ([{"loss": "kd"}], 4),
        ([{"loss": "logit_mse"}], 1),
        ([{"loss": "mse", "student": "1", "teacher": "1", "adapter": "auto"}], 1),
        ([{"loss": "mse", "student": "1", "teacher": "1"}, {"loss": "dkd", "temperature": 2.5}], 2.5),
    ],
)
def test_the_temperature_is_that_of_the_first_term_on_logits(terms: list[dict[str, Any]], expected: float) -> None:
    assert temperature(check(SMALL | {"distill": {"terms": terms}})) == expected


def test_the_teacher_output_of_an_ensemble_is_what_is_diagnosed(tmp_path: Path) -> None:
    members = [SMALL["teacher"], SMALL["teacher"] | {"seed": 1, "weight": 0.0}]
    one = diagnose_recipe(check(SMALL), root=tmp_path, machine=QUIET)["diagnosis"]
    both = diagnose_recipe(check(SMALL | {"teacher": members}), root=tmp_path, machine=QUIET)
    assert len(both["teacher"]) == 2
    # The second has no voice, and softmax(log p / T) is softmax(z / T).
    assert both["diagnosis"]["entropy"] == pytest.approx(one["entropy"], rel=1e-4)
