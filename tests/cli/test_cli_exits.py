"""`limbeck exits` and `limbeck export` as a user meets them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import limbeck
from limbeck.cli.main import main

pytestmark = pytest.mark.usefixtures("few_digits")


def command(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["limbeck", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_a_run_to_a_small_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--epochs", "1", "--set", "student.widths=[4, 6, 8]", "--no-baseline", "--quiet")
    arguments: tuple[str, ...] = ("run", "digits-byot", *small, "--out", "run")
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    capsys.readouterr()

    arguments = ("exits", "run", "--thresholds", "0.5, 0.9", "--within", "0.5", "--accelerator", "cpu")
    assert command(*arguments, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    found = json.loads(Path("run/exits.json").read_text())
    for word in ("early exit, validation set", "threshold 0.5. Test set", "run/exits.json", "run/exits.html"):
        assert word in shown
    assert f"{found['exits']['1/3']['multiply_adds']:,}" in shown
    assert f"{found['chosen']['test']['accuracy']:.4f}" in shown
    assert Path("run/exits.html").exists()

    assert command("export", "run", "--exit", "1", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert 'limbeck.load_model("run/export/exit-1.json")' in shown
    assert f"{found['exits']['1/3']['parameters']:,}" in shown
    assert limbeck.load_model("run/export/exit-1.json")

    for arguments, message in (
        (("export", "run"), "choose one with --exit"),
        (("exits", "run", "--thresholds", "high"), "--thresholds takes comma-separated numbers"),
        (("exits", "run", "--thresholds", "1.5"), "a threshold is a probability"),
        (("exits", "nowhere"), "holds no finished run"),
    ):
        assert command(*arguments, monkeypatch=monkeypatch) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert message in printed
