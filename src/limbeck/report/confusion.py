"""The picture of a confusion matrix, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure

NUMBERED, NAMED = 20, 50
"""Classes up to which cells show their counts, and axes the classes' names."""
_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "SimHei")
"""Fonts with Chinese characters, one of which most computers have that need them."""


class Drawing(NamedTuple):
    """The same picture as SVG text and as the bytes of a PNG file."""

    svg: str
    png: bytes


def drawn(counts: np.ndarray[Any, Any], names: Sequence[str]) -> Drawing:
    """Draw a confusion matrix (C, C) with labels as rows, coloured by each row's shares.

    Classes whose names no installed font can write are shown by their numbers.
    """
    family = _family(names)
    labels = names if family else [str(number) for number in range(len(names))]
    with matplotlib.rc_context({"svg.hashsalt": "limbeck", "font.family": family or "DejaVu Sans"}):
        figure = _figure(counts, labels)
        text, image = io.StringIO(), io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return Drawing(text.getvalue(), image.getvalue())


def _figure(counts: np.ndarray[Any, Any], labels: Sequence[str]) -> Figure:
    classes = len(labels)
    side = float(np.clip(3 + 0.4 * classes, 4, 14))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= NAMED:
        axes.set_xticks(range(classes), labels, rotation=90)
        axes.set_yticks(range(classes), labels)
    if classes <= NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("label")
    return figure


def _family(names: Sequence[str]) -> str | None:
    """An installed font that can write all names; None where there is none."""
    needed = {ord(character) for name in names for character in name if not character.isspace()}
    installed = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    for family in ("DejaVu Sans", *_FONTS):
        if family in installed and needed <= font_manager.get_font(installed[family]).get_charmap().keys():
            return family
    return None
