"""Where a teacher is asked about all samples, and where a model is tested, a line is written each minute."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from limbeck.recipes.read import read
from limbeck.runs import each_minute
from limbeck.runs.machine import Machine
from limbeck.runs.run import run

CHANGES = [
    "epochs=3",
    "teacher.epochs=1",
    "data.limit_samples=96",
    "data.batch_size=16",
    "distill.terms=[{loss: kd}]",
    "compile=null",
]
SAID = "teacher outputs: 32 of 96 samples, 0:02:00 left"


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_long_wait_is_heard_of_each_minute(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a clock that goes on by half a minute a look: one look a batch."""
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    clock = itertools.count(0, 30)
    monkeypatch.setattr(each_minute, "monotonic", lambda: next(clock))
    monkeypatch.setattr("limbeck.runs.components.HELD_OUT", 16)
    recipe = read("digits", [*CHANGES, f"teacher.store.where={where}"])
    run(recipe, root=tmp_path, out=tmp_path / "run", baseline=False, machine=Machine(accelerator="cpu"))
    said = capsys.readouterr().err.splitlines()
    asked = [line for line in said if "teacher outputs: " in line]
    assert asked == [f"limbeck: {SAID}", "limbeck: teacher outputs: 64 of 96 samples, 0:01:00 left"]
    tests = [line for line in said if line.startswith("limbeck: test: 32 of 96 samples, 0:02:00 left")]
    assert len(tests) == 2  # of the teacher's outputs and of the student
