"""Three hundred odd requests: each ends well, or is refused in one short line and leaves nothing behind."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from mutations import BASES, Wrong, dumped, mutation

from limbeck.cli.main import main
from limbeck.data import DataSet, sets
from limbeck.engine.loop import Loop
from limbeck.errors import LINE

BLOCK = 25


@functools.cache
def few_digits() -> DataSet:
    whole = sets.load("digits", Path())
    few = (whole.train.subset(torch.arange(160)), whole.test.subset(torch.arange(40)))
    return replace(whole, train=few[0], test=few[1])


def _short(loop: Loop) -> Loop:
    """The same training for one epoch at most."""
    return replace(loop, settings=replace(loop.settings, epochs=min(loop.settings.epochs, 1)))


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Wrong], list[str]]:
    """`limbeck run` of an odd recipe, on 160 digits and for one epoch however many it says; gives what is wrong."""
    train, digits = Loop.run, few_digits()
    monkeypatch.setitem(sets.NAMES, "digits", lambda root, size: digits)
    monkeypatch.setattr(Loop, "run", lambda self, state: train(_short(self), state))
    monkeypatch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    monkeypatch.setenv("LIMBECK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)

    def asked(wrong: Wrong) -> list[str]:
        (tmp_path / "odd.yaml").write_bytes(wrong.recipe)
        out = [] if "--out" in wrong.arguments else ["--out", "run"]
        accelerator = [] if "--accelerator" in wrong.arguments else ["--accelerator", "cpu"]
        words = ["limbeck", "run", "odd.yaml", "--quiet", *out, *accelerator, *wrong.arguments]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            main()
        left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "odd.yaml"]
        found = _faults(end.value.code, capsys.readouterr().err, left)
        for path in left:
            path.unlink()
        return found

    return asked


def _faults(status: Any, said: str, left: list[Path]) -> list[str]:
    if status == 0:
        return []
    # A recipe that is right in all its parts may diverge; that shows in the training alone.
    if status == 1 and " is not finite in epoch " in said and said.count("\n") == 1:
        return []
    faults = [] if status == 2 else [f"status {status}"]
    if said.count("\n") != 1 or len(said) > LINE + 1 or not said.strip().isprintable():
        faults.append(f"{said.count(chr(10))} lines of {len(said)} characters")
    if left:
        faults.append(f"left behind: {left[0]}")
    return [*faults, said] if faults else []


@pytest.mark.parametrize("recipe", BASES, ids=range(len(BASES)))
def test_what_is_mutated_runs(recipe: dict[str, Any], ask: Callable[[Wrong], list[str]], tmp_path: Path) -> None:
    assert ask(Wrong(dumped(recipe), "as it is")) == []


@pytest.mark.parametrize("first", range(0, 300, BLOCK))
def test_an_odd_request_ends_well_or_is_refused_in_one_line(
    first: int, ask: Callable[[Wrong], list[str]], tmp_path: Path
) -> None:
    found = {}
    for number in range(first, first + BLOCK):
        wrong = mutation(number)
        if faults := ask(wrong):
            found[number, wrong.what] = faults
    assert found == {}
