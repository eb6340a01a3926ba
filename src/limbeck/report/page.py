"""compare.html: one self-contained page with the table, accuracy with intervals, and training curves."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.compare.labels import label_of
from limbeck.compare.verdicts import with_simultaneous
from limbeck.compare.words import ended, equal_time, needed, procedure
from limbeck.engine.saving.files import write_text
from limbeck.report.document import document, drawing
from limbeck.runs.entry import label, metric, monitor_of, score, span

DIFFERENCES = (
    "The differences to the baseline: each seed's, and the mean with its 95 % interval by itself (thick) and the "
    "simultaneous one (thin), which gives the verdict."
)


def write_page(folder: Path, title: str | None = None) -> Path | None:
    """Write compare.html from a comparison's folder.

    Args:
        folder: What `compare` wrote.
        title: The page's; by default recipe and data.

    Returns:
        The page's path; None where matplotlib, of the extra `report`, is not installed.
    """
    charts = drawing()
    if charts is None:
        return None
    comparison = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    comparison["methods"] = with_simultaneous(comparison)
    path = folder / "compare.html"
    monitor = label(monitor_of(comparison))
    figures = [
        (charts.differences(comparison), DIFFERENCES),
        (charts.curves(folder, comparison), f"{monitor} while training, mean over the seeds."),
    ]
    write_text(path, _page(comparison, figures, title))
    return path


def _page(comparison: Mapping[str, Any], figures: list[tuple[str, str]], title: str | None) -> str:
    name = title or f"{comparison['recipe']} on {comparison['data']}"
    seeds = ", ".join(map(str, comparison["seeds"]))
    drawn = "".join(f"<figure>{svg}<figcaption>{caption}</figcaption></figure>" for svg, caption in figures)
    machine = comparison["environment"]
    device = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cores']} cores"
    body = f"""<p>Each method trained the same student: same starts, data order, optimizer and {comparison["epochs"]}
epochs, with the seeds {seeds}. Differences are to the student trained without a teacher, in pairs of one seed.</p>
{_methods(comparison["methods"], comparison["seeds"])}
<p class="small">mean ± standard deviation over seeds; {procedure(comparison)}. The 95 % interval is for one method by
itself.{_sentences(needed(comparison["methods"]), ended(comparison))}</p>
{_timed(comparison)}
{_predictions(comparison["methods"])}
{_teachers(comparison["teacher"])}
{_diagnosis(comparison.get("diagnosis"))}
{drawn}
<p class="small">limbeck {machine["limbeck"]}, torch {machine["torch"]}, {html.escape(device)}</p>"""
    return document(name, body)


def _timed(comparison: Mapping[str, Any]) -> str:
    """The methods at equal time, where they were trained so."""
    if "equal_time" not in comparison:
        return ""
    timed = comparison["equal_time"]
    steps = ", ".join(f"{label_of(name, row)} {row['steps']:,}" for name, row in timed["methods"].items())
    return f"""<h2>At equal time</h2>
{_methods(timed["methods"], comparison["seeds"])}
<p class="small">{html.escape(equal_time(comparison))}. Steps: {html.escape(steps)}.</p>"""


def _sentences(*parts: str) -> str:
    """Those that say something, each with a space before it and a full stop."""
    return "".join(f" {html.escape(part)}." for part in parts if part)


def _methods(methods: Mapping[str, Mapping[str, Any]], seeds: list[int]) -> str:
    rows = []
    for name, row in methods.items():
        some = "" if row["seeds"] == seeds else f" (seeds {', '.join(map(str, row['seeds']))})"
        spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
        cells = [f"<td>{html.escape(label_of(name, row))}{some}</td><td>{row['mean']:.4f}{spread}</td>"]
        if "difference" in row:
            verdict = row["verdict"]
            cells.append(f"<td>{row['difference']:+.4f}</td><td>{span(row['interval'])}</td>")
            cells.append(f"<td>{span(row['simultaneous'])}</td>")
            cells.append(f'<td class="verdict {verdict.split()[0]}">{verdict}</td>')
        else:
            cells.append("<td></td>" * 4)
        agreed = metric(row, "agreement")
        agreement = "–" if agreed is None else f"{agreed:.4f}"
        cells.append(f"<td>{agreement}</td><td>{row['seconds']:.1f}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    monitor = label(next(iter(methods.values()))["monitor"])
    head = f"<th>method<th>test {monitor}<th>− baseline<th>95 % interval<th>simultaneous"
    head += '<th class="verdict">verdict<th>agreement<th>seconds'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _predictions(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """The same for each exit or peer, where there are several."""
    rows = []
    for method, one in methods.items():
        for name, row in one.get("predictions", {}).items():
            spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
            cells = (
                f"<td>{html.escape(label_of(method, one))}, {html.escape(name)}</td><td>{row['mean']:.4f}{spread}</td>"
            )
            for found in (row, row.get("backbone", {})):
                there = "difference" in found
                cells += f"<td>{found['difference']:+.4f}</td>" if there else "<td></td>"
                cells += f"<td>{span(found.get('simultaneous'))}</td>" if there else "<td></td>"
                cells += f'<td class="verdict">{found["verdict"]}</td>' if there else "<td></td>"
            rows.append(f"<tr>{cells}</tr>")
    head = '<th>prediction<th>test accuracy<th>− baseline<th>simultaneous<th class="verdict">verdict'
    head += '<th>− backbone<th>simultaneous<th class="verdict">verdict'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _teachers(teachers: list[Mapping[str, Any]]) -> str:
    lines = [f"{t['parameters']:,} parameters, test {label(t['monitor'])} {score(t):.4f}" for t in teachers]
    return f"<p>Teacher: {'; '.join(lines)}.</p>" if lines else "<p>No teacher.</p>"


def _diagnosis(found: Mapping[str, Any] | None) -> str:
    """What the teacher had to teach, and the warning where it had memorised its training set."""
    if found is None:
        return ""
    held_out = found["held_out"]
    cells = {
        "training accuracy": f"{found['train_accuracy']:.4f}",
        f"{held_out} accuracy": f"{found['held_out_accuracy']:.4f}",
        "calibration error": f"{found['calibration_error']:.4f}",
        "temperature": f"{found['temperature']:g}",
        "entropy of soft labels": f"{found['entropy']:.2f} of {found['maximum_entropy']:.2f} nats",
        f"on {held_out} data": f"{found['held_out_entropy']:.2f} nats",
    }
    head, row = (
        "".join(f"<{tag}>{cell}</{tag}>" for cell in side) for tag, side in (("th", cells), ("td", cells.values()))
    )
    warning = f'<p class="warning">{html.escape(found["warning"])}</p>' if found["warning"] else ""
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
        f'<p class="small">what the teacher has to teach, from {found["samples"]:,} training samples</p>{warning}'
    )
