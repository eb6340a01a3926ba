"""Ctrl-C and SIGTERM end a command by one line, and by the status that shells expect."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.main import main

RUN = ["run", "digits", "--quiet", "--epochs", "1", "--no-baseline", "--set", "teacher.epochs=1"]
STOPS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["limbeck", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stopped_at(monkeypatch: pytest.MonkeyPatch, place: str, number: int) -> None:
    def stop(*args: object, **options: object) -> None:
        os.kill(os.getpid(), number)
        signal.pause()  # until it is there

    monkeypatch.setattr(place, stop)


@pytest.mark.parametrize(("number", "status", "word"), STOPS)
def test_a_run_says_how_to_go_on_and_does(
    number: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        stopped_at(patched, "limbeck.runs.run.examine", number)
        assert command(patched, *RUN) == status
    line = capsys.readouterr().err
    assert line == f"limbeck: {word}; resume with: limbeck {' '.join(RUN)} --out runs/digits --resume\n"
    assert not Path("runs/digits/result.json").exists()
    assert (
        command(monkeypatch, *shlex.split(line.partition("limbeck run")[1] + line.partition("limbeck run")[2])[1:]) == 0
    )
    assert Path("runs/digits/result.json").exists()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "status", "word"), STOPS)
def test_an_error_of_what_swallowed_the_interruption_is_the_interruption(
    number: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallows(*args: object, **options: object) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), number)
            signal.pause()
        raise AttributeError("module 'half' has no attribute 'imported'")

    monkeypatch.setattr("limbeck.runs.run.examine", swallows)
    assert command(monkeypatch, *RUN) == status
    assert capsys.readouterr().err == f"limbeck: {word}\n"


@pytest.mark.parametrize(("number", "status", "word"), STOPS)
@pytest.mark.parametrize(
    ("arguments", "place", "again"),
    [
        (
            ["cache", "digits", "--quiet"],
            "limbeck.runs.outputs.beforehand.cache",
            "; resume with: limbeck cache digits --quiet",
        ),
        (["diagnose", "digits"], "limbeck.runs.diagnose.diagnose_recipe", "; resume with: limbeck diagnose digits"),
        (["run", "digits"], "limbeck.runs.run.run", "; resume with: limbeck run digits"),
        (["list"], "limbeck.cli.names.names", ""),
    ],
)
def test_what_has_nothing_to_resume_is_given_again(
    arguments: list[str],
    place: str,
    again: str,
    number: int,
    status: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped_at(monkeypatch, place, number)
    assert command(monkeypatch, *arguments) == status
    assert capsys.readouterr().err.strip() == f"limbeck: {word}{again}"


@pytest.mark.parametrize("out", [["--out", "mine"], ["--out=mine"]])
def test_a_folder_that_was_named_is_resumed_once_it_holds_the_recipe(
    out: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        stopped_at(patched, "limbeck.runs.folder.environment", signal.SIGINT)  # it has just been written
        assert command(patched, *RUN, *out) == 130
    assert capsys.readouterr().err.endswith(f"limbeck {' '.join([*RUN, *out])} --resume\n")
    with monkeypatch.context() as patched:
        stopped_at(patched, "limbeck.runs.folder.write_text", signal.SIGINT)
        assert command(patched, *RUN, "--out", "other") == 130
    assert capsys.readouterr().err.endswith(f"limbeck {' '.join(RUN)} --out other\n")


def test_forked_processes_die_of_sigterm_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []

    def fork(*args: Any) -> dict[str, list[str]]:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return {}

    monkeypatch.setattr("limbeck.cli.names.names", fork)
    assert command(monkeypatch, "list") == 0
    assert ended == [-signal.SIGTERM]
