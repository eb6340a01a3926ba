"""limbeck plan: what a recipe will cost, estimated from a probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.errors import RequestError
from limbeck.recipes.read import check, read
from limbeck.runs.cost import estimate
from limbeck.runs.cost.estimate import plan
from limbeck.runs.machine import Machine

SMALL = {
    "teacher": {"model": "mlp", "hidden": [32], "epochs": 5},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"terms": [{"loss": "kd"}]},
    "epochs": 4,
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are to be there, not to be steady."""
    monkeypatch.setattr(estimate, "ENOUGH", 0.02)


def test_sizes_and_counts_are_exact(tmp_path: Path) -> None:
    found = plan(check(SMALL | {"data": {"name": "digits", "augment": ["flip"], "views": 3}}), root=tmp_path)
    assert found["samples"] == 1437
    assert found["student"]["parameters"] == 64 * 8 + 8 + 80 + 10
    assert found["student"]["multiply_adds"] == 64 * 8 + 80
    assert found["teachers"][0]["multiply_adds"] == 64 * 32 + 320
    assert found["store"]["views"] == 3
    assert found["store"]["bytes"] == 1437 * 3 * 10 * 4  # ten logits in fp32, as auto stores them
    steps = 45  # of 32
    student, teacher = found["student"], found["teachers"][0]
    assert student["training_seconds"] == pytest.approx(student["step_seconds"] * steps * 4)
    assert teacher["training_seconds"] == pytest.approx(teacher["step_seconds"] * steps * 5)


def test_larger_data_is_reckoned_from_the_same_probe(tmp_path: Path) -> None:
    found = plan(check(SMALL), root=tmp_path, samples=1_000_000)
    assert found["store"]["bytes"] == 1_000_000 * 40
    student = found["student"]
    assert student["training_seconds"] == pytest.approx(student["step_seconds"] * 31_250 * 4)
    assert found["store"]["seconds"] > 100 * plan(check(SMALL), root=tmp_path)["store"]["seconds"]


def test_the_probe_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    plan(check(SMALL), root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plan", "digits"])
    assert done.exit_code == 0, done.output
    for words in ("baseline", "student, online teacher", "student, stored teacher", "stored teacher output"):
        assert words in done.output
    as_json = json.loads(CliRunner().invoke(app, ["plan", "digits", "--json", "--samples", "5000"]).output)
    assert as_json["samples"] == 5000
    assert "store" not in json.loads(CliRunner().invoke(app, ["plan", "digits-mutual", "--json"]).output)


def test_chains_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="plan each of them by itself"):
        plan(read("digits-assistant"), root=tmp_path, machine=Machine(progress=False))


@pytest.mark.parametrize(
    ("method", "stage", "epochs", "own"),
    [("ab", "initialisation", [1, 8], []), ("ft", "paraphraser", [1, 8], ["task", "FactorTransfer"])],
)
def test_stages_are_summed(method: str, stage: str, epochs: list[int], own: list[str], tmp_path: Path) -> None:
    """30 epochs of 270 are 1 of 9, as are 6 of 170, one at least; the labels alone have no balance."""
    convolutions = {"model": "cnn", "channels": [4, 8, 8]}
    staged = SMALL | {"teacher": convolutions | {"epochs": 1}, "student": convolutions, "distill": {"method": method}}
    found = plan(check(staged | {"epochs": 9}), root=tmp_path, machine=Machine(progress=False))
    assert [(one["name"], one["epochs"]) for one in found["stages"]] == [(stage, epochs[0]), ("student", epochs[1])]
    assert found["online"] == pytest.approx(sum(one["online"] for one in found["stages"]))
    assert [pull["name"] for pull in found["balance"] if "stage" not in pull] == own
    assert {pull["stage"] for pull in found["balance"] if "stage" in pull} == {stage}
    assert found["stored"] > 0
    assert found["store"]["bytes"] > 0


def test_a_student_of_one_stage_has_no_stages(tmp_path: Path) -> None:
    assert "stages" not in plan(check(SMALL), root=tmp_path, machine=Machine(progress=False))
