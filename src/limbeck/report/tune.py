"""tune.html: one self-contained page with the verdicts, the search as it went, and which settings mattered."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.compare.labels import label_of
from limbeck.report.document import document, write_drawn
from limbeck.runs.entry import label, span


def contenders_of(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of the baseline and the methods among the keys of tune.json."""
    return {name: found[name] for name in found["importances"]}


def write_tune_page(folder: Path, title: str | None = None) -> Path | None:
    """Write tune.html from the tune.json of a folder.

    Args:
        folder: Of a finished search.
        title: The page's; by default recipe and data.

    Returns:
        The page's path; None where matplotlib, of the extra `report`, is not installed.
    """

    def draw(found: Mapping[str, Any], charts: Any) -> str:
        return _page(found, charts.search(found, contenders_of(found)), title)

    return write_drawn(folder, "tune", draw)


def spread(by_seed: Mapping[str, float]) -> str:
    """The mean over seeds with its standard deviation."""
    values = list(by_seed.values())
    more = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{more}"


def _page(found: Mapping[str, Any], chart: str, title: str | None) -> str:
    monitor, machine = label(found["monitor"]), found["environment"]
    seeds, cost = ", ".join(map(str, found["fresh_seeds"])), found["cost"]
    device = ", ".join(machine["gpus"]) or f"{machine['processor']}, {machine['cores']} cores"
    validation, test = found["samples"]["validation"], found["samples"]["test"]
    body = f"""<p>The baseline and each method had as many trials. Settings were chosen on {validation:,} validation
samples, with the seed {found["seed"]}; then each one's best setting was trained anew with the seeds {seeds}, and tested
on {test:,} samples that the search has not seen.</p>
{_table(found, monitor)}
<p class="small">mean ± standard deviation over the fresh seeds; differences are to the baseline's best setting, in
pairs of one seed; the verdict is what the simultaneous interval shows, which holds for all methods together; optimism:
by how much the best validation {monitor} is better than the mean test {monitor}</p>
<figure>{chart}<figcaption>Validation {monitor} of each trial; a ring is a trial that was ended early. The line is the
best so far.</figcaption></figure>
{"".join(_contender(name, row, found) for name, row in contenders_of(found).items())}
<p class="small">Search {cost["search"]:,.0f} s, fresh trainings {cost["fresh"]:,.0f} s, teacher outputs
{cost["teacher_outputs"]:,.1f} s. limbeck {machine["limbeck"]}, torch {machine["torch"]}, {html.escape(device)}</p>"""
    return document(title or f"{found['title']} on {found['data']}, tuned", body)


def _table(found: Mapping[str, Any], monitor: str) -> str:
    rows = []
    for name, row in contenders_of(found).items():
        own = row["own"]["validation"]
        cells = [html.escape(label_of(name, row)), str(row["trials"]), str(row["pruned"]), f"{row['seconds']:.1f}"]
        cells += ["–" if own is None else f"{own:.4f}", f"{row['best']['validation']:.4f}"]
        cells.append(spread(row["fresh"]))
        verdict = found["verdict"].get(name)
        beside = ["", "", ""]
        if verdict is not None:
            beside = [f"{verdict['difference']:+.4f}", span(verdict["interval"]), span(verdict["simultaneous"])]
        said = "" if verdict is None else verdict["verdict"]
        cells = [f"<td>{cell}</td>" for cell in (*cells, *beside)]
        cells.append(f'<td class="verdict {said.partition(" ")[0]}">{said}</td>')
        rows.append(f"<tr>{''.join(cells)}<td>{found['optimism'][name]:+.4f}</td></tr>")
    head = ["contender", "trials", "ended early", "seconds", f"validation {monitor}, recipe's own setting", "best"]
    head += [f"fresh test {monitor}", "− baseline", "95 % interval", "simultaneous", "verdict", "optimism"]
    titles = "".join(f"<th>{one}</th>" for one in head)
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div style="overflow-x: auto">{table}</div>'


def _contender(name: str, row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A contender's best setting beside the recipe's own, and how much each key had to do with the score."""
    shares, own, best = found["importances"][name], row["own"]["settings"], row["best"]["settings"]
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{_value(own.get(key))}</td><td>{_value(best.get(key))}</td>"
        f"<td>{format(shares[key], '.0%') if key in shares else '–'}</td></tr>"
        for key in sorted({**own, **best}, key=lambda key: -shares.get(key, 0.0))
    )
    head = "<th>key</th><th>recipe's own</th><th>best</th><th>importance</th>"
    return (
        f"<h2>{html.escape(label_of(name, row))}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="small">Ready to run: {html.escape(row["recipe"])}</p>'
    )


def _value(value: Any) -> str:
    if value is None:
        return "–"
    plain = f"{value:.4g}" if isinstance(value, float) else json.dumps(value).replace('"', "")
    return html.escape(plain)
