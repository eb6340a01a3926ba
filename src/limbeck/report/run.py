"""run.html: one self-contained page of a single run, or of one student of a comparison: table and training curves."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.engine.saving.files import write_text
from limbeck.errors import RequestError, as_request
from limbeck.report.document import document, drawing
from limbeck.runs.entry import in_int8, metric
from limbeck.runs.folder import read_result

PAGE = "run.html"


def write_run_page(folder: Path, title: str | None = None) -> Path | None:
    """Write run.html from what a finished run left.

    Args:
        folder: The run folder, or that of one student of a comparison.
        title: The page's; by default recipe, data and seed.

    Returns:
        The page's path; None where matplotlib, of the extra `report`, is not installed.

    Raises:
        RequestError: The folder holds no finished run, or no training curves.
    """
    charts = drawing()
    if charts is None:
        return None
    result = read_result(folder)
    rows = students(result)
    figure = next(iter(rows.values()))["monitor"]
    by_phase = _records(folder / "metrics.jsonl")
    path = folder / PAGE
    write_text(path, _page(folder, result, title, figure, charts.training(by_phase, figure)))
    return path


def students(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The networks that a result has figures of, by name.

    Raises:
        RequestError: It is no result of a run.
    """
    if "method" in result:
        return {str(result["method"]): result}
    if "distilled" not in result:
        raise RequestError("this result has no student; limbeck report draws finished runs and comparisons")
    teachers = result["teacher"] if isinstance(result["teacher"], list) else [result["teacher"]]
    several = len(teachers) > 1
    rows = {f"teacher {number}" if several else "teacher": one for number, one in enumerate(teachers)}
    return {
        **rows,
        **({"baseline": result["baseline"]} if "baseline" in result else {}),
        "distilled student": result["distilled"],
        **in_int8(result),
        **({"ensemble": result["ensemble"]} if "ensemble" in result else {}),
    }


def _records(path: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """What each epoch of each training recorded."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    with as_request(lambda reason: f"cannot read the training curves in {path}: {reason}"):
        for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            found.setdefault(record["phase"], {})[record["epoch"]] = record
    return found


def _page(folder: Path, result: Mapping[str, Any], title: str | None, figure: str, curves: str) -> str:
    about = f"{result['recipe']} on {result['data']}, seed {result['seed']}" if "recipe" in result else folder.name
    name = title or about
    body = f"""{_table(students(result), figure)}
<p class="small">Test figures. One run has one seed, and another seed gives other figures: limbeck compare trains
several.</p>
<figure>{curves}<figcaption>Each training by epoch: the loss while training, and {figure} on the validation set where
there is one, else while training.</figcaption></figure>"""
    return document(name, body)


def _table(rows: Mapping[str, Mapping[str, Any]], figure: str) -> str:
    body = ""
    for name, row in rows.items():
        agreement = metric(row, "agreement")
        cells = [
            html.escape(name),
            _number(row.get("parameters"), ","),
            _number(metric(row, figure), ".4f"),
            _number(agreement, ".4f"),
            _number(row.get("epochs"), ""),
            _number(row.get("seconds"), ".1f"),
        ]
        body += f"<tr><td>{'</td><td>'.join(cells)}</td></tr>"
    head = f"model<th>parameters<th>test {figure}<th>agreement<th>epochs<th>seconds"
    return f"<table><thead><tr><th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
