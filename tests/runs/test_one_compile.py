"""All students of a run or of a comparison are compiled, or none is."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.compare import compare
from limbeck.engine.devices import compiling
from limbeck.errors import RequestError
from limbeck.recipes.read import check
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

QUIET = Machine(accelerator="cpu", progress=False)
COMPILE = torch.compile
BASE: dict[str, Any] = {
    "name": "alike",
    "data": {"batch_size": 256},
    "student": {"model": "mlp", "hidden": [8]},
    "distill": {"scheme": "teacher-free", "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 1,
}
OPERATION: dict[str, Any] = {
    "student": {"model": "resnet8"},
    "teacher": {"model": "resnet8", "epochs": 1},
    "distill": {"terms": [{"loss": "mse", "student": "stage3.0.add", "teacher": "stage3.0.add"}]},
}
"""Its term reads an operation, which no compiled network shows."""
PAYS, COSTS = (100.0, 40.0), (40.0, 100.0)
"""Seconds of a pass as it is, and compiled."""


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Compiling is tried here too; the first trial shows that it pays, every later one that it does not."""
    monkeypatch.setattr(compiling, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch, "compile", lambda function, **_: COMPILE(function, backend="eager"))
    torch.compiler.reset()
    said: Iterator[float] = itertools.chain(PAYS, itertools.cycle(COSTS))
    asked: list[float] = []

    def seconds(*_: Any) -> float:
        asked.append(next(said))
        return asked[-1]

    monkeypatch.setattr(compiling, "_pass_seconds", seconds)
    return asked


def modes(folder: Path) -> dict[str, str | None]:
    return {
        str(path.parent.name): json.loads(path.read_text())["compile"] for path in sorted(folder.glob("*/result.json"))
    }


def test_one_trial_decides_for_baseline_and_student(trials: list[float], tmp_path: Path) -> None:
    result = run(check(BASE), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == ("default", "default")
    assert trials == list(PAYS)
    decision = json.loads((tmp_path / "run" / "compile.json").read_text())
    assert decision["mode"] == "default"
    assert decision["reason"].startswith("compiled: a pass takes 40000.00 ms compiled, and 100000.00 ms as it is")


def test_a_resumed_run_keeps_the_decision(trials: list[float], tmp_path: Path) -> None:
    run(check(BASE), root=tmp_path, out=tmp_path, machine=QUIET)
    for file in ("student.json", "student.safetensors", "result.json", "checkpoints/last.pt"):
        (tmp_path / file).unlink()
    result = run(check(BASE), root=tmp_path, out=tmp_path, machine=QUIET, resume=True)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == ("default", "default")
    assert trials == list(PAYS)


def test_no_student_is_compiled_where_one_cannot_be(
    trials: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.runs.teachers.AUTO", None)  # the teacher decides for itself
    result = run(check(BASE | OPERATION), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == (None, None)
    assert not trials
    assert "a term reads 'stage3.0.add'" in json.loads((tmp_path / "run" / "compile.json").read_text())["reason"]


def test_one_trial_decides_for_a_comparison(trials: list[float], tmp_path: Path) -> None:
    def go(*methods: str, resume: bool = False) -> None:
        compare(check(BASE), methods, [0, 1], root=tmp_path, out=tmp_path, machine=QUIET, resume=resume)

    go("recipe", "mutual")
    expected = {f"{name}-seed{seed}": "default" for name in ("mutual", "recipe", "baseline") for seed in (0, 1)}
    assert modes(tmp_path) == expected
    go("recipe", "mutual", "class-wise", resume=True)
    assert modes(tmp_path) == expected | {"class-wise-seed0": "default", "class-wise-seed1": "default"}
    assert trials == list(PAYS)


def test_a_method_that_cannot_be_compiled_is_not_added_to_compiled_ones(
    trials: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.runs.teachers.AUTO", None)
    recipe = check(BASE | OPERATION)
    compare(recipe, ["kd"], [0], root=tmp_path, out=tmp_path, machine=QUIET)
    with pytest.raises(RequestError, match=r"that of an added method cannot be: a term reads 'stage3.0.add'"):
        compare(recipe, ["kd", "recipe"], [0], root=tmp_path, out=tmp_path, machine=QUIET, resume=True)
    assert not (tmp_path / "recipe-seed0").exists()


def test_a_mode_by_name_is_tried_by_nobody(trials: list[float], tmp_path: Path) -> None:
    result = run(check(BASE | {"compile": None}), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == (None, None)
    assert not trials
    assert not (tmp_path / "run" / "compile.json").exists()
