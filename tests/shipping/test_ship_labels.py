"""What is shown of shipped files can be read, where several are about as fast and as good, and of several runs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from limbeck.cli.shipped import shipped as show


def of_two_runs() -> dict[str, Any]:
    row = {
        "model": "distilled", "runtime": "onnx", "precision": "fp32", "bytes": 12, "score": 0.9,
        "interval": [0.8, 0.95], "agreement": None, "latency": {"1": {"p50_ms": 1.0, "p95_ms": 2.0}},
        "ratio_to_teacher": {}, "peak_memory_bytes": None, "frontier": True,
    }  # fmt: skip
    how = {"refused": "int8 loses 9.00 points on validation, and 0.30 are allowed", "time_ran_out": True}
    rows = [{**row, "run": "one"}, {**row, "run": "two"}]
    several = {"runs": {"one": {}, "two": {}}, "rows": rows, "chosen": {"one": {"distilled": how}}, "out": "both"}
    machine = {"busy": 0.4}
    return {**several, "monitor": "accuracy", "mode": "max", "machine": machine, "slower": [], "notes": []}


def test_of_several_runs_each_has_its_name_and_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    show(of_two_runs())
    said = capsys.readouterr().out
    assert "one: distilled" in said
    assert "two: distilled" in said
    assert "card: README.md and, for a device build, limbeck.json, in the folder of each run in both" in said
    assert "other programs took 40% of the time while latency was measured" in said
    assert "0.30 are allowed; the time ran out before all was tried: --seconds gives more" in said


def test_the_picture_of_several_runs_names_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    from limbeck.report import charts

    named: list[str] = []
    plain = Axes.annotate

    def watched(axes: Axes, text: str, *given: Any, **options: Any) -> Any:
        named.append(text)
        return plain(axes, text, *given, **options)

    monkeypatch.setattr(Axes, "annotate", watched)
    charts.frontier(of_two_runs())
    assert named == ["one: distilled, onnx fp32", "two: distilled, onnx fp32"]


def test_no_label_stands_on_another_nor_on_a_mark_and_one_alone_stays() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from limbeck.report.labels import MARK, apart

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    places = [(0.03, 0.95), (0.031, 0.95), (0.032, 0.9501), (0.03, 0.9495), (1.0, 0.95)]
    axes.plot(*zip(*places, strict=True), "o")
    axes.set_xscale("log")
    axes.margins(0.3)
    options = {"xytext": (6, -3), "textcoords": "offset points", "fontsize": 7}
    notes = [axes.annotate(f"model number {at}", place, **options) for at, place in enumerate(places)]
    apart(figure, notes)
    figure.draw_without_rendering()
    edges = [note.get_window_extent().extents for note in notes]
    for (left, low, right, high), (x0, y0, x1, y1) in itertools.combinations(edges, 2):
        assert right <= x0 or x1 <= left or high <= y0 or y1 <= low
    half = MARK / 2 * figure.dpi / 72
    for (x, y), (left, low, right, high) in itertools.product(axes.transData.transform(places), edges):
        assert right <= x - half or x + half <= left or high <= y - half or y + half <= low
    assert notes[4].get_position() == (6, -3)
    assert max(abs(note.get_position()[1] + 3) for note in notes) <= 4 * 9, "they stay near their points"
