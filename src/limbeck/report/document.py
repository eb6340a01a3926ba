"""What all pages have in common: one self-contained HTML document, and charts where matplotlib is installed."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from limbeck.engine.saving.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #d1d9e0; text-align: right; white-space: nowrap }
th:first-child, td:first-child, .verdict { text-align: left }
td.better { color: #1a7f37 } td.worse, .warning { color: #cf222e }
figure { margin: 2rem 0 } svg { max-width: 100%; height: auto } figcaption, .small { color: #57606a; font-size: .9rem }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A page of its own, without anything to load.

    Args:
        title: Plain text, also its heading.
        body: HTML.
        style: CSS that the page has besides that of all.
    """
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>limbeck: {name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{style}</style></head><body>
<h1>{name}</h1>
{body}
</body></html>
"""


def drawing() -> ModuleType | None:
    """The charts; None where matplotlib, of the extra `report`, is not installed."""
    try:
        from limbeck.report import charts
    except ModuleNotFoundError:
        return None
    return charts


def write_drawn(folder: Path, stem: str, page: Callable[[Mapping[str, Any], ModuleType], str]) -> Path | None:
    """Write STEM.html from STEM.json in a folder.

    Args:
        folder: Where the JSON file lies.
        stem: The name of both files.
        page: From what the file holds, and the charts, to the page.

    Returns:
        The page's path; None where the charts cannot be drawn.
    """
    charts = drawing()
    if charts is None:
        return None
    found = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    path = folder / f"{stem}.html"
    write_text(path, page(found, charts))
    return path
