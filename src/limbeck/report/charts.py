"""The charts of a comparison and of a network's exits, drawn by matplotlib as SVG text."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from limbeck.compare.labels import label_of
from limbeck.report.labels import apart
from limbeck.runs.entry import label, monitor_of
from limbeck.runs.folder import student_folder

BLUE, GREY = "#0969da", "#8c959f"
SHAPES = {"fp32": "o", "fp16": "s", "int8": "D"}
"""A mark for each precision."""


def differences(comparison: Mapping[str, Any]) -> str:
    """For each method the difference to the baseline of every seed as a dot, and the mean with both its intervals.

    The thick line is the 95 % interval by itself, the thin one with ends the simultaneous one, which gives the verdict.
    """
    methods = {name: row for name, row in comparison["methods"].items() if "difference" in row}
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(methods)), layout="constrained")
    axes = figure.subplots()
    for row, entry in enumerate(methods.values()):
        pairs = _pairs(entry, comparison["methods"]["baseline"])
        axes.plot(pairs, np.full(len(pairs), row + 0.18), "o", color=GREY, alpha=0.6, markersize=4)
        mean, alone, together = entry["difference"], entry["interval"], entry["simultaneous"]
        if together is not None:
            axes.errorbar(mean, row, xerr=[[mean - together[0]], [together[1] - mean]], color=BLUE, capsize=4)
            axes.plot(alone, [row, row], "-", color=BLUE, linewidth=4, solid_capstyle="butt")
        axes.plot(mean, row, "D", color=BLUE, markersize=6)
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(methods)), [label_of(name, entry) for name, entry in methods.items()])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set_xlabel(f"test {label(monitor_of(comparison))} − that of the baseline, in pairs of one seed")
    return _svg(figure)


def _pairs(entry: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[float]:
    alone = dict(zip(baseline["seeds"], baseline["scores"], strict=True))
    by_seed = dict(zip(entry["seeds"], entry["scores"], strict=True))
    return [value - alone[seed] for seed, value in by_seed.items() if seed in alone]


def curves(folder: Path, comparison: Mapping[str, Any]) -> str:
    """The score by epoch, validation where there is one, mean over the seeds, a line a method."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    monitor = monitor_of(comparison)
    measured = monitor
    colours = matplotlib.colormaps["tab10" if len(comparison["methods"]) <= 10 else "tab20"]
    for number, (name, row) in enumerate(comparison["methods"].items()):
        lines = []
        for seed in row["seeds"]:
            text = (folder / student_folder(name, seed) / "metrics.jsonl").read_text(encoding="utf-8")
            records = [json.loads(line) for line in text.splitlines()]
            names = (f"val_{monitor}", monitor, "loss")
            measured = next(name for name in names if all(name in record for record in records))
            lines.append([record[measured] for record in records])
        mean = np.mean(lines, axis=0)
        axes.plot(range(1, len(mean) + 1), mean, label=label_of(name, row), color=colours(number % colours.N))
    axes.set_xlabel("epoch")
    part, name = ("validation", monitor) if measured.startswith("val_") else ("training", measured)
    axes.set_ylabel(f"{part} {label(name)}")
    axes.legend(loc="lower right", fontsize=9, ncols=2 if len(comparison["methods"]) > 8 else 1)
    return _svg(figure)


def training(by_phase: Mapping[str, Mapping[int, Mapping[str, Any]]], figure: str) -> str:
    """The loss of each training by epoch, and a figure: on validation where there is one, else while training.

    Args:
        by_phase: For each training its epochs' records by their numbers.
        figure: Such as "accuracy".
    """
    drawing = Figure(figsize=(8, 3.6), layout="constrained")
    panels = drawing.subplots(1, 2)
    for phase, epochs in by_phase.items():
        for axes, name in zip(panels, ("loss", figure), strict=True):
            held_out = f"val_{name}" if name == figure else name
            points = [(epoch, one.get(held_out, one.get(name))) for epoch, one in epochs.items()]
            line = [(epoch, value) for epoch, value in points if value is not None]
            if line:
                axes.plot(*zip(*line, strict=True), marker="." if len(line) < 20 else "", label=phase)
    for axes, name in zip(panels, ("loss", figure), strict=True):
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
    panels[0].legend(fontsize=9)
    return _svg(drawing)


def early_exits(found: Mapping[str, Any]) -> str:
    """Accuracy against multiply-adds: every exit alone and the ensemble as dots, early exit as a line of thresholds."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    split, points = found["curve"]["split"], found["curve"]["points"]
    alone = {**{f"exit {name}": row for name, row in found["exits"].items()}, "ensemble": found["ensemble"]}
    for name, row in alone.items():
        at = (row["multiply_adds"], row[f"{split}_accuracy"])
        axes.plot(*at, "o", color=GREY, markersize=6)
        axes.annotate(name, at, xytext=(5, -12), textcoords="offset points", fontsize=9, color=GREY)
    line = [(point["multiply_adds"], point["accuracy"]) for point in points]
    axes.plot(*zip(*line, strict=True), "-", marker=".", color=BLUE, label="early exit")
    if found["chosen"] and found["chosen"]["threshold"] is not None:
        chosen = found["chosen"]["validation"]
        label = f"chosen threshold, {chosen['threshold']}"
        axes.plot(chosen["multiply_adds"], chosen["accuracy"], "D", color=BLUE, markersize=8, label=label)
    axes.margins(0.12)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("multiply-adds a sample")
    axes.set_ylabel(f"{split} accuracy")
    axes.legend(loc="lower right", fontsize=9)
    return _svg(figure)


def frontier(found: Mapping[str, Any]) -> str:
    """Score over latency at the smallest batch, a dot with its interval for each file, and the frontier as a line."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    batch = next(iter(found["rows"][0]["latency"]))
    colours = {"teacher": GREY, "baseline": "#bf8700"}
    notes = []
    for row in found["rows"]:
        at = (row["latency"][batch]["p50_ms"], row["score"])
        spread = [[row["score"] - row["interval"][0]], [row["interval"][1] - row["score"]]]
        colour = colours.get(row["model"].partition("-")[0], BLUE)
        axes.errorbar(*at, yerr=np.abs(spread), fmt=SHAPES[row["precision"]], color=colour, elinewidth=0.8)
        run = f"{row['run']}: " if len(found["runs"]) > 1 else ""
        named = f"{run}{row['model']}, {row['runtime']} {row['precision']}"
        notes.append(axes.annotate(named, at, xytext=(6, -3), textcoords="offset points", fontsize=7, color=colour))
    best = sorted((row["latency"][batch]["p50_ms"], row["score"]) for row in found["rows"] if row["frontier"])
    axes.plot(*zip(*best, strict=True), "-", color=BLUE, linewidth=1, alpha=0.6, label="frontier")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(0.15)
    axes.set_xlabel(f"median latency of a batch of {batch.replace('x', ' × ')}, ms")
    axes.set_ylabel(f"test {found['monitor']}")
    axes.legend(loc="lower right", fontsize=9)
    apart(figure, notes)
    return _svg(figure)


def search(found: Mapping[str, Any], contenders: Mapping[str, Mapping[str, Any]]) -> str:
    """The validation score of each trial by its number, a panel a contender, and the best so far as a line."""
    figure = Figure(figsize=(8, 1 + 1.9 * len(contenders)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(contenders), 1, sharex=True, sharey=True))
    better = max if found["mode"] == "max" else min
    for axes, (name, row) in zip(panels, contenders.items(), strict=True):
        whole = [(one["number"] + 1, one["value"]) for one in row["history"] if one["state"] == "complete"]
        ended = [(one["number"] + 1, one["value"]) for one in row["history"] if one["state"] == "pruned"]
        best = [(at, better(value for _, value in whole[: place + 1])) for place, (at, _) in enumerate(whole)]
        axes.step(*zip(*best, strict=True), where="post", color=BLUE, linewidth=1)
        axes.plot(*zip(*whole, strict=True), "o", color=BLUE, markersize=5)
        if ended:
            axes.plot(*zip(*ended, strict=True), "o", color=GREY, markersize=5, fillstyle="none")
        axes.set_ylabel(label_of(name, row))
    panels[-1].set_xlabel("trial")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    # A fixed salt and no date: the same figures give the same page.
    with matplotlib.rc_context({"svg.hashsalt": "limbeck", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]
