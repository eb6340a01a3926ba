"""exits.html: one self-contained page with the accuracy of each exit, and accuracy against compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.report.document import document, write_drawn


def write_exits_page(folder: Path) -> Path | None:
    """Write exits.html from the exits.json of a run folder.

    Returns:
        The page's path; None where matplotlib, of the extra `report`, is not installed.
    """
    return write_drawn(folder, "exits", lambda found, charts: _page(found, charts.early_exits(found)))


def _page(found: Mapping[str, Any], chart: str) -> str:
    name = f"exits of {found['recipe']} on {found['data']}, seed {found['seed']}"
    split = found["curve"]["split"]
    body = f"""<p>{_verdict(found["chosen"], split)}</p>
<figure>{chart}<figcaption>Accuracy on the {split} set against multiply-adds a sample: each exit as a network of its
own, the ensemble, and early exit at each threshold.</figcaption></figure>
{_exits(found)}
{_curve(found["curve"]["points"])}
<p class="small">Early exit at a threshold, on the {split} set. Multiply-adds are those of one sample at a time; in a
batch they are saved only where the batch shrinks.</p>"""
    return document(name, body)


def _verdict(chosen: Mapping[str, Any] | None, split: str) -> str:
    if chosen is None:
        return f"This run has no validation split, so the curve is the {split} set's, and no threshold is chosen by it."
    if chosen["threshold"] is None:
        return f"No threshold keeps the accuracy on validation within {chosen['within']} of the deepest exit's."
    on_test = chosen["test"]
    return (
        f"Threshold {chosen['threshold']}, chosen on validation within {chosen['within']} of the deepest exit: on the "
        f"test set accuracy {on_test['accuracy']:.4f} with {on_test['multiply_adds']:,.0f} multiply-adds a sample."
    )


def _exits(found: Mapping[str, Any]) -> str:
    rows = ""
    for name, row in {**found["exits"], "ensemble": found["ensemble"]}.items():
        cells = [name, f"{row['parameters']:,}", f"{row['multiply_adds']:,}"]
        cells += [f"{row[f'{split}_accuracy']:.4f}" if f"{split}_accuracy" in row else "–" for split in _SPLITS]
        rows += _row(cells)
    return _table("exit<th>parameters<th>multiply-adds<th>validation accuracy<th>test accuracy", rows)


def _curve(points: list[Mapping[str, Any]]) -> str:
    rows = ""
    for point in points:
        shares = " / ".join(f"{share:.0%}" for share in point["shares"])
        cells = [str(point["threshold"]), f"{point['accuracy']:.4f}", f"{point['multiply_adds']:,.0f}", shares]
        rows += _row(cells)
    return _table("threshold<th>accuracy<th>multiply-adds<th>leave at each exit", rows)


def _row(cells: list[str]) -> str:
    return f"<tr><td>{'</td><td>'.join(cells)}</td></tr>"


def _table(head: str, rows: str) -> str:
    return f"<table><thead><tr><th>{head}</tr></thead><tbody>{rows}</tbody></table>"


_SPLITS = ("validation", "test")
