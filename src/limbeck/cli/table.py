"""`limbeck table`: runs and comparisons of several recipes or machines in one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from limbeck.errors import unknown

FORMATS = ("text", "csv", "markdown", "latex", "json")


def table(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDERS...", help="Finished runs and comparisons.")],
    join: Annotated[
        bool, typer.Option("--join", help="They are parts of one comparison: make verdicts from all their students.")
    ] = False,
    format: Annotated[str, typer.Option(help="text, csv, markdown, latex or json.")] = "text",
) -> None:
    """Show runs and comparisons in one table, with columns for what differs besides the method."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    from limbeck.cli.printing import WIDE, console, document
    from limbeck.cli.printing import table as new_table
    from limbeck.compare.join import as_table
    from limbeck.compare.join import join as joined
    from limbeck.compare.table import table as side_by_side
    from limbeck.report.tables import WRITERS, cells

    found = as_table(joined(folders)) if join else side_by_side(folders)
    if format == "json":
        document(found.as_dict())
        return
    if format != "text":
        sys.stdout.write(WRITERS[format](found))
        return
    head, rows = cells(found)
    shown = new_table("")
    for name in head:
        shown.add_column(name, justify="left" if name in ("method", "verdict", "folder") else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    console(WIDE).print(shown)
    unequal, other = ", ".join(found.unequal), ", ".join(key for key in found.differ if key not in found.unequal)
    equal = f"equal budgets; rows differ in their methods and seeds{f', and in {other}' if other else ' alone'}"
    console().print(f"not at an equal budget: rows differ in {unequal}" if unequal else equal, soft_wrap=True)
