"""`limbeck report`: the page of a finished run, comparison or search, drawn anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.errors import RequestError


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a finished run, comparison or search.")],
    title: Annotated[str | None, typer.Option(help="The page's title. Default: recipe, data and seed.")] = None,
) -> None:
    """Draw the page of a finished run, comparison or search anew: its table and curves."""
    from limbeck.errors import as_request
    from limbeck.report import write_page
    from limbeck.report.exits import write_exits_page
    from limbeck.report.run import write_run_page
    from limbeck.report.tune import write_tune_page
    from limbeck.runs.finished.exits import EXITS
    from limbeck.runs.folder import COMPARISON, TUNED

    writers = {COMPARISON: write_page, TUNED: write_tune_page}
    with as_request(lambda reason: f"cannot draw {folder}: {reason}"):
        page = next((one for file, one in writers.items() if (folder / file).exists()), write_run_page)(folder, title)
        more = write_exits_page(folder) if (folder / EXITS).exists() else None
    if page is None:
        raise RequestError("drawing needs matplotlib: pip install 'limbeck[report]'")
    for path in filter(None, (page, more)):
        print(f"page: {path}")  # noqa: T201
