"""`limbeck report` draws what is there: figures of result.json and curves of metrics.jsonl, under any title."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from called import Limbeck


def test_a_run_has_a_page(limbeck: Limbeck, digits_run: Path) -> None:
    said = limbeck("report", digits_run)
    assert (said.status, said.out) == (0, f"page: {digits_run / 'run.html'}\n"), said.err
    page = (digits_run / "run.html").read_text(encoding="utf-8")
    result = json.loads((digits_run / "result.json").read_text())
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", page)
    assert [row.split("</td><td>")[0] for row in rows] == ["teacher", "baseline", "distilled student"]
    for row, name in zip(rows, ("teacher", "baseline", "distilled"), strict=True):
        assert row.split("</td><td>")[2] == f"{result[name]['test_accuracy']:.4f}"
    assert "<h1>digits on digits, seed 0</h1>" in page
    assert page.count("<svg") == 1


def test_a_comparison_and_its_students_are_drawn_anew_under_a_title(limbeck: Limbeck, comparisons: Path) -> None:
    whole = comparisons / "whole"
    before = (whole / "compare.html").read_text(encoding="utf-8")
    assert limbeck("report", whole, "--title", "蒸馏 <tiny>").status == 0
    page = (whole / "compare.html").read_text(encoding="utf-8")
    assert "<title>limbeck: 蒸馏 &lt;tiny&gt;</title>" in page
    assert page != before
    assert limbeck("report", whole).status == 0
    assert (whole / "compare.html").read_text(encoding="utf-8") == before
    assert limbeck("report", whole / "kd-seed1").status == 0
    assert "<h1>kd-seed1</h1>" in (whole / "kd-seed1" / "run.html").read_text(encoding="utf-8")


def test_curves_go_through_the_recorded_numbers(digits_run: Path) -> None:
    from limbeck.report import charts
    from limbeck.report.run import _records

    records = _records(digits_run / "metrics.jsonl")
    drawn = []
    from matplotlib.axes import Axes

    def plot(axes: Axes, *given: object, **named: object) -> None:
        drawn.append(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Axes, "plot", plot)
        patch.setattr(Axes, "legend", lambda *a, **b: None)
        charts.training(records, "accuracy")
    lines = (digits_run / "metrics.jsonl").read_text().splitlines()
    baseline = [one for one in map(json.loads, lines) if one["phase"] == "baseline"]
    assert ((1, 2), tuple(one["loss"] for one in baseline)) in drawn
    assert ((1, 2), tuple(one["accuracy"] for one in baseline)) in drawn


def test_exits_are_drawn_too(limbeck: Limbeck, exits_run: Path) -> None:
    assert limbeck("exits", exits_run, "--thresholds", "0.5").status == 0
    (exits_run / "exits.html").unlink()
    said = limbeck("report", exits_run)
    assert said.out == f"page: {exits_run / 'run.html'}\npage: {exits_run / 'exits.html'}\n"
    assert (exits_run / "exits.html").exists()


def test_what_cannot_be_drawn_is_one_line(
    limbeck: Limbeck, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_run, tmp_path / "cut")
    (tmp_path / "cut" / "metrics.jsonl").unlink()
    for folder, message in ((tmp_path, "holds no finished run"), (tmp_path / "cut", "cannot read the training curves")):
        said = limbeck("report", folder)
        assert (said.status, said.err.count("\n")) == (2, 1)
        assert message in said.err
    monkeypatch.delitem(sys.modules, "limbeck.report.charts", raising=False)
    monkeypatch.delattr("limbeck.report.charts", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = limbeck("report", digits_run)
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "pip install 'limbeck[report]'" in said.err
