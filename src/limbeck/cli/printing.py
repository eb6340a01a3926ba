"""How the commands print: tables that fit a terminal, and JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table


WIDE = 130
"""Characters of a line with two intervals, where standard output is no terminal."""


def document(found: Any) -> None:
    """One JSON document, neither wrapped nor coloured."""
    print(json.dumps(found, indent=2))  # noqa: T201


def cell(value: float | None, form: str) -> str:
    """A figure in a table."""
    return "–" if value is None else format(value, form)


def drawn_at(page: Path | None) -> str:
    """Where a page is; None is one that was not drawn, for what it needs is not installed."""
    return "needs pip install limbeck[report]" if page is None else str(page)


def table(title: str) -> Table:
    """A table with a title."""
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)


def console(width: int = 110) -> Console:
    """Standard output; where it is no terminal, so many characters wide."""
    from rich.console import Console

    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=width)
