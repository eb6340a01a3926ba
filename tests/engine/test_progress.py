"""What is shown: a bar, and without a terminal lines: one an epoch, and in a long one one each minute."""

from __future__ import annotations

import io
import re

import pytest

from limbeck.engine.callbacks import progress
from limbeck.engine.callbacks.progress import Progress
from limbeck.tasks import Embedding, Regression


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_epoch_is_heard_of_each_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    display = Progress("student", 2, 1000, task=Regression())
    for done, now in ((100, 110.0), (500, 150.0), (600, 160.0), (700, 170.0), (800, 221.0)):  # noqa: B007 - the clock
        display.step(done, {"loss": 0.5, "mae": 0.25})
    first, second = capsys.readouterr().err.splitlines()
    pace = "10.0 steps/s  left: epoch 0:00:50, all 0:02:30"  # 400 steps in 40 s
    assert first == f"student  epoch 1/2  loss 0.5000  mae 0.2500  step 500/1000  {pace}"
    assert second.endswith("step 800/1000  6.3 steps/s  left: epoch 0:00:32, all 0:03:10")  # 700 steps in 111 s


def test_a_bar_of_80_columns_shows_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Progress("baseline", 20, 1000, task=Regression()) as display:
        for done, now in ((14_100, 110.0), (14_500, 150.0)):  # noqa: B007 - the clock
            display.step(done, {"loss": 0.5, "mae": 0.25})
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert lines[-2].startswith("baseline  epoch 15/20 ━")
    assert lines[-2].endswith("10.0 steps/s  left: epoch 0:00:50, all 0:09:10")  # 400 steps in 40 s
    assert lines[-1] == "loss 0.5000  mae 0.2500  step 500/1000"


def test_an_epochs_line_has_the_tasks_figures(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"epoch": 1, "loss": 0.5, "mae": 0.25, "val_rmse": 0.125, "seconds": 3.0}
    Progress("student", 2, 10, task=Regression()).epoch(record)
    assert capsys.readouterr().err == "student  epoch 1/2  loss 0.5000  mae 0.2500  val_rmse 0.1250  3.0 s\n"
    Progress("student", 2, 10, task=Embedding()).epoch({"epoch": 1, "loss": 0.5, "seconds": 3.0})
    assert "no labels" not in capsys.readouterr().err
