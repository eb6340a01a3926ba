"""What `limbeck compare` prints: the table of its methods, how the verdicts were made, and where the figures are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from limbeck.cli.printing import WIDE, cell, drawn_at
from limbeck.cli.printing import console as new_console
from limbeck.cli.printing import table as new_table
from limbeck.cli.show import outputs
from limbeck.compare.labels import label_of
from limbeck.compare.words import ended, equal_time, needed, procedure
from limbeck.errors import counted
from limbeck.runs.entry import label, metric, monitor_of, span


def comparison(comparison: Mapping[str, Any], page: Path | None) -> None:
    """The table at the end of a comparison."""
    console = new_console(WIDE)
    seeds = ", ".join(map(str, comparison["seeds"]))
    title = f"{comparison['recipe']} on {comparison['data']}, {counted(comparison['epochs'], 'epoch')}, seeds {seeds}"
    console.print(_methods(comparison, comparison["methods"], title))
    if "equal_time" in comparison:
        timed = comparison["equal_time"]
        console.print(_methods(comparison, timed["methods"], f"at equal time, {timed['seconds']:.1f} s a student"))
        console.print(equal_time(comparison), soft_wrap=True)
    _predictions(console, comparison["methods"])
    outputs(console, comparison)
    _below(console, comparison)
    where = f"{comparison['out']}/compare.json"
    console.print(f"figures: {where}   page: {drawn_at(page)}", soft_wrap=True)


def _methods(comparison: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """A row a method; at equal time with the steps that each made."""
    table, figure = new_table(title), f"test {label(monitor_of(comparison))}"
    steps = any("steps" in row for row in methods.values())
    names = ["method", figure, "− baseline", "95 % interval", "simultaneous", "verdict", "agreement", "seconds"]
    for column in (*names, *(["steps"] if steps else [])):
        table.add_column(column, justify="left" if column in ("method", "verdict") else "right")
    for name, row in methods.items():
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        some = "" if row["seeds"] == comparison["seeds"] else f" (seeds {', '.join(map(str, row['seeds']))})"
        cells = [f"{label_of(name, row)}{some}", f"{row['mean']:.4f}{spread}"]
        if "difference" in row:
            cells += [f"{row['difference']:+.4f}", span(row["interval"]), span(row["simultaneous"]), row["verdict"]]
        else:
            cells += [""] * 4
        cells += [cell(metric(row, "agreement"), ".4f"), cell(row["seconds"], ".1f")]
        table.add_row(*cells, *([f"{row['steps']:,}"] if steps else []))
    return table


def _below(console: Console, comparison: Mapping[str, Any]) -> None:
    """How the verdicts were made, and what more seeds would show."""
    console.print(f"mean ± standard deviation; {procedure(comparison)}", soft_wrap=True)
    if line := ended(comparison):
        console.print(line, soft_wrap=True)
    compared, trained = len(comparison["methods"]) - 1, len(comparison["seeds"])
    if line := needed(comparison["methods"]):
        console.print(line, soft_wrap=True)
    if compared > trained > 1:
        again = f"--out {comparison['out']} --resume --seeds N adds to them"
        console.print(f"so corrected, {trained} seeds show large differences only; {again}", soft_wrap=True)


def _predictions(console: Console, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """The accuracy of each exit or peer of every method, where there are several."""
    rows = [
        (label_of(method, one), name, row)
        for method, one in methods.items()
        for name, row in one.get("predictions", {}).items()
    ]
    if not rows:
        return
    table = new_table("each prediction, with simultaneous 95 % intervals")
    columns = ["method", "prediction", "test accuracy", "− baseline"]
    columns += ["− backbone"] if "backbone" in methods else []
    for column in columns:
        table.add_column(column, justify="left" if column in ("method", "prediction") else "right")
    for method, name, row in rows:
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        cells = [method, name, f"{row['mean']:.4f}{spread}", _difference(row), _difference(row.get("backbone", {}))]
        table.add_row(*cells[: len(columns)])
    console.print(table)


def _difference(found: Mapping[str, Any]) -> str:
    """A difference, its interval, and its verdict where that is better or worse."""
    if "difference" not in found:
        return ""
    within = f" ({span(found['simultaneous'])})" if found["simultaneous"] else ""
    shown = found["verdict"] if found["verdict"] in ("better", "worse") else ""
    return f"{found['difference']:+.4f}{within} {shown}".rstrip()
