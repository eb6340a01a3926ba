"""Labels of points in a chart that do not stand one upon the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

MARK = 7
"""Width and height of a point's mark, in points (1/72 inch)."""
TRIED = 24
"""Places that are tried for a label; after these it stays at the last one."""


def apart(figure: Figure, notes: Sequence[Annotation], step: float = 9) -> None:
    """Move labels up or down, as little as it takes for none to overlap one before it, or the mark of another point.

    Args:
        figure: The chart, with all that decides of its layout.
        notes: Its labels, whose offset to their points is in points (1/72 inch).
        step: By how many points they are moved at a time.
    """
    figure.draw_without_rendering()
    half = MARK / 2 * figure.dpi / 72
    points = [note.axes.transData.transform(note.xy) for note in notes if note.axes is not None]
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in points]
    for note in notes:
        x, y = note.get_position()
        for move in _moves(step):
            note.set_position((x, y + move))
            box = note.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _moves(step: float) -> Iterator[float]:
    """Nothing, one step down, one up, two down, …"""
    yield 0.0
    for number in range(1, TRIED):
        yield step * ((number + 1) // 2) * (-1 if number % 2 else 1)
