"""`limbeck report`: the page of a finished run or comparison, drawn anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.errors import RequestError


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a finished run or comparison.")],
    title: Annotated[str | None, typer.Option(help="The page's title. Default: recipe, data and seed.")] = None,
) -> None:
    """Draw the page of a finished run or comparison anew: its table and training curves."""
    from limbeck.errors import as_request
    from limbeck.report import write_page
    from limbeck.report.exits import write_exits_page
    from limbeck.report.run import write_run_page
    from limbeck.runs.exits import EXITS
    from limbeck.runs.folder import COMPARISON

    with as_request(lambda reason: f"cannot draw {folder}: {reason}"):
        page = (write_page if (folder / COMPARISON).exists() else write_run_page)(folder, title)
        more = write_exits_page(folder) if (folder / EXITS).exists() else None
    if page is None:
        raise RequestError("drawing needs matplotlib: pip install 'limbeck[report]'")
    for path in filter(None, (page, more)):
        print(f"page: {path}")  # noqa: T201
