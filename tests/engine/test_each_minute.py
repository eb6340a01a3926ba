"""Where a teacher is asked about all samples, a model is validated or tested, a line is written each minute."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from limbeck import Distiller, Hardware, Term, fit, losses
from limbeck.engine import each_minute
from limbeck.recipes.read import read
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


@pytest.mark.parametrize(("known", "said"), [(True, "2 of 5 batches, 0:01:30 left"), (False, "2 batches")])
def test_so_is_a_long_validation(
    known: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the same clock; a loader may know its length or not."""
    batches = [(torch.rand(8, 4), torch.randint(2, (8,))) for _ in range(5)]

    class Stream:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(batches)

    clock = itertools.count(0, 30)
    monkeypatch.setattr(each_minute, "monotonic", lambda: next(clock))
    distiller = Distiller(nn.Linear(4, 2), [Term(losses.kd)])
    val, sgd = batches if known else Stream(), partial(torch.optim.SGD, lr=0.1)
    fit(distiller, batches, teacher=nn.Linear(4, 2), val=val, epochs=1, optimizer=sgd, hardware=Hardware("cpu"))
    assert f"limbeck: student: validation: {said}" in capsys.readouterr().err.splitlines()
