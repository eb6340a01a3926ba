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
CNNS = {"student": {"model": "cnn", "channels": [4, 6]}, "teacher": {"model": "cnn", "channels": [6, 8], "epochs": 1}}
# Its hint is trained first.
STAGES: dict[str, Any] = {
    **CNNS,
    "distill": {"scheme": "two-stage", "terms": [{"loss": "kd", "weight": 0.5}]},
    "epochs": 2,
}
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
    result = run(check(BASE | STAGES), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == (None, None)
    assert not trials
    assert "hidden tensors" in json.loads((tmp_path / "run" / "compile.json").read_text())["reason"]


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
    recipe = check(BASE | CNNS)
    compare(recipe, ["kd"], [0], root=tmp_path, out=tmp_path, machine=QUIET)
    with pytest.raises(RequestError, match="an added method reads hidden tensors"):
        compare(recipe, ["kd", "fitnet"], [0], root=tmp_path, out=tmp_path, machine=QUIET, resume=True)
    assert not (tmp_path / "fitnet-seed0").exists()


def test_a_mode_by_name_is_tried_by_nobody(trials: list[float], tmp_path: Path) -> None:
    result = run(check(BASE | {"compile": None}), root=tmp_path, out=tmp_path / "run", machine=QUIET)
    assert (result["baseline"]["compile"], result["distilled"]["compile"]) == (None, None)
    assert not trials
    assert not (tmp_path / "run" / "compile.json").exists()
