"""ship.html: one self-contained page with accuracy over latency, the table, and the commands."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.report.document import document, write_drawn

BUSY = 0.05
"""Share of the time from which on it is said that other programs took it."""
STYLE = """
body { max-width: 84rem } table { font-size: .82rem } th { white-space: normal; vertical-align: bottom }
th, td { padding: .3rem .35rem } td.pair { white-space: normal } td span { white-space: nowrap }
th:nth-child(-n + 4), td:nth-child(-n + 4) { text-align: left }
"""


def write_ship_page(folder: Path) -> Path | None:
    """Write ship.html from the ship.json of a folder.

    Returns:
        The page's path; None where matplotlib, of the extra `report`, is not installed.
    """
    return write_drawn(folder, "ship", lambda found, charts: _page(found, charts.frontier(found)))


def _page(found: Mapping[str, Any], chart: str) -> str:
    name = f"shipped: {', '.join(found['runs'])}"
    machine = found["machine"]
    batch = next(iter(found["rows"][0]["latency"]))
    body = f"""<pre>{html.escape(found["command"])}</pre>
<figure>{chart}<figcaption>Test {found["monitor"]} with its 95 % interval over the median latency, {size_of(batch)};
the line joins the files that no other one beats in both.</figcaption></figure>
{_table(found)}
<p class="small">Interval: {html.escape(found["intervals"]["interval"])}. Beside the baseline:
{html.escape(found["intervals"]["beside_baseline"])}.
Speed: {html.escape(found["intervals"]["ratio_to_teacher"])}.</p>
{_chosen(found["chosen"])}
{_notes(found)}
<p class="small">limbeck {machine["limbeck"]}, torch {machine["torch"]}, onnxruntime {machine["onnxruntime"]},
{html.escape(machine["processor"])}, {machine["threads"]} thread(s), {html.escape(", ".join(machine["flags"]))}</p>"""
    return document(name, body, STYLE)


def size_of(name: str) -> str:
    """What the size of a latency is called: of texts, whose sizes are named "1x32", with the tokens of each."""
    batch, _, length = name.partition("x")
    return f"batch {batch} × {length} tokens" if length else f"batch {batch}"


def when_busy(machine: Mapping[str, Any]) -> list[str]:
    """A line where other programs computed while latency was measured."""
    share = machine.get("busy", 0)
    if share <= BUSY:
        return []
    return [
        f"other programs took {share:.0%} of the time while latency was measured: times are too long, p95 above all; "
        "measure again on a quiet machine"
    ]


def _table(found: Mapping[str, Any]) -> str:
    batches = list(found["rows"][0]["latency"])
    head = ["model", "runtime", "precision", "file", "bytes", found["monitor"], "95 % interval", "− baseline"]
    head += ["agreement", "calibration error"]
    head += [f"p50 / p95, ms, {size_of(batch)}" for batch in batches] + ["× the teacher's speed", "peak memory, MB"]
    rows = "".join(_row(row, batches, several=len(found["runs"]) > 1) for row in found["rows"])
    titles = "".join(f"<th>{html.escape(one)}" for one in head)
    return f'<div style="overflow-x: auto"><table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(row: Mapping[str, Any], batches: list[str], several: bool) -> str:
    name = f"{row['run']}: {row['model']}" if several else row["model"]
    beside, memory = row.get("beside_baseline"), row["peak_memory_bytes"]
    cells: list[str | tuple[str, str]] = [name, row["runtime"], row["precision"], row["file"] or "–"]
    cells += [f"{row['bytes']:,}", f"{row['score']:.4f}"]
    cells.append("{:.4f} to {:.4f}".format(*row["interval"]))
    cells.append("–" if beside is None else (f"{beside['difference']:+.4f}", f"({_span(beside['interval'], '+.4f')})"))
    cells.append("–" if row["agreement"] is None else f"{row['agreement']:.4f}")
    cells.append("–" if row["calibration_error"] is None else f"{row['calibration_error']:.4f}")
    times = [row["latency"][batch] for batch in batches]
    cells += [(f"{one['p50_ms']:.3f}", f"/ {one['p95_ms']:.3f}") for one in times]
    ratio = row["ratio_to_teacher"].get(batches[0])
    cells.append("–" if ratio is None else (f"{ratio['ratio']:.2f}", f"({_span(ratio['interval'], '.2f')})"))
    cells.append("–" if memory is None else f"{memory / 1e6:.0f}")
    return f"<tr>{''.join(_cell(one, 'better' if row['frontier'] else '') for one in cells)}</tr>"


def _cell(shown: str | tuple[str, str], name: str) -> str:
    """A cell; where there is no room, an interval or a p95 stands below the figure that it belongs to."""
    if isinstance(shown, str):
        return f'<td class="{name}">{html.escape(shown)}</td>'
    figure, more = map(html.escape, shown)
    return f'<td class="pair {name}">{figure} <span>{more}</span></td>'


def _span(interval: list[float], form: str) -> str:
    low, high = interval
    return f"{low:{form}} to {high:{form}}"


def _chosen(chosen: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How each int8 file was chosen, or why it was refused."""
    text = ""
    for run, each in chosen.items():
        for name, how in each.items():
            title = html.escape(f"int8 of {name}, {run}")
            if how["refused"]:
                said = f'<p class="warning">Refused: {html.escape(how["refused"])}.</p>'
            else:
                left = f"; in fp32 stay {', '.join(how['left_out'])}" if how["left_out"] else ""
                said = f"<p>{html.escape(how['scheme'] + left)}. Chosen on {html.escape(how['chosen_on'])}.</p>"
            rows = "".join(
                f"<tr><td>{html.escape(one['scheme'])}</td><td>{one['bytes']:,}</td><td>{one['score']:.4f}</td>"
                f"<td>{100 * one['drop']:+.2f}</td></tr>"
                for one in how["attempts"]
            )
            tried = f"<thead><tr><th>tried<th>bytes<th>score<th>lost, points or %</tr></thead><tbody>{rows}</tbody>"
            text += f"<details><summary>{title}</summary>{said}<table>{tried}</table></details>"
    return text


def _notes(found: Mapping[str, Any]) -> str:
    notes = (*when_busy(found["machine"]), *found["slower"], *found["notes"])
    return "".join(f'<p class="small">{html.escape(note)}</p>' for note in notes)
