"""Names of points in the picture of ship.html can be read where files are about as fast and as good."""

from __future__ import annotations

import itertools

import pytest

matplotlib = pytest.importorskip("matplotlib")


def test_no_label_stands_on_another_and_one_alone_stays() -> None:
    from matplotlib.figure import Figure

    from limbeck.report.labels import apart

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
    assert notes[0].get_position() == notes[4].get_position() == (6, -3)
    assert max(abs(note.get_position()[1] + 3) for note in notes) <= 4 * 9, "they stay near their points"
