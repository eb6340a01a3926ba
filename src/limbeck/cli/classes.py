"""What `limbeck evaluate --report` prints: a row a class, and the names of the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.cli.printing import cell, console, table

MOST = 50
"""Classes of which each has a row; of more, those with the lowest F1 have one."""


def by_class(found: Mapping[str, Any]) -> None:
    """Precision, recall, F1 and support of each class, and their means."""
    rows: list[Mapping[str, Any]] = found["classes"]
    title = "each class"
    if len(rows) > MOST:
        title = f"the {MOST} classes with the lowest F1, of {len(rows):,}"
        rows = sorted(rows, key=lambda row: -1 if row["f1"] is None else row["f1"])[:MOST]
    shown = table(title)
    for column in ("class", "precision", "recall", "F1", "support"):
        shown.add_column(column, justify="left" if column == "class" else "right", overflow="fold")
    macro = {**found["macro"], "class": "mean of all classes", "support": found["samples"]}
    for row in (*rows, macro):
        figures = (cell(row[name], ".4f") for name in ("precision", "recall", "f1"))
        shown.add_row(row["class"], *figures, f"{row['support']:,}")
    console().print(shown)


def written(files: Sequence[Path]) -> None:
    """The files of the report, and what a picture needs where there is none."""
    lacks = "" if any(path.suffix == ".png" for path in files) else "; a picture needs pip install 'limbeck[report]'"
    console().print(f"written: {', '.join(map(str, files))}{lacks}", soft_wrap=True)
