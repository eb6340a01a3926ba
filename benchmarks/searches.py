"""The figures of `limbeck tune`'s searches, and their sections of docs/results.md.

python -m benchmarks.record FOLDER "limbeck tune mnist-mlp …"   # keeps FOLDER/tune.json
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.compare.labels import label_of
from limbeck.report.tune import contenders_of, spread
from limbeck.runs.entry import label, span
from limbeck.tuning.settings import as_text

KEPT = ("number", "state", "value", "settings", "seconds")
"""What is kept of a trial: what was tried and what came of it, without its epochs."""


def kept(found: dict[str, Any]) -> dict[str, Any]:
    """A search as it is kept."""
    rows = {
        name: {**row, "history": [{key: one[key] for key in KEPT} for one in row["history"]]}
        for name, row in contenders_of(found).items()
    }
    return {**found, **rows}


def section(content: dict[str, Any]) -> str:
    """The table of a search, and the settings that it found."""
    rows, samples = contenders_of(content), content["samples"]
    monitor, seeds = label(content["monitor"]), ", ".join(map(str, content["fresh_seeds"]))
    lines = [f"## Tuned: {content['title']} on {content['data']}\n", f"    {content['command']}\n"]
    lines.append(
        f"Settings were chosen on {samples['validation']:,} validation samples with the seed {content['seed']}, in as "
        f"many trials each; the winners were trained anew with the seeds {seeds} for {content['epochs']} epochs, and "
        f"tested on {samples['test']:,} samples that the search has not seen.\n"
    )
    lines.append(
        f"| contender | trials | ended early | seconds | best validation {monitor} | fresh test {monitor} | − baseline "
        "| 95 % interval | simultaneous | verdict | optimism |"
    )
    lines.append(f"|{'---|' * 11}")
    for name, row in rows.items():
        verdict = content["verdict"].get(name, {})
        beside = [f"{verdict['difference']:+.4f}"] if verdict else [""]
        beside += [span(verdict[key]) if verdict.get(key) else "" for key in ("interval", "simultaneous")]
        cells = [label_of(name, row), row["trials"], row["pruned"], f"{row['seconds']:.0f}"]
        cells += [f"{row['best']['validation']:.4f}", spread(row["fresh"]), *beside, verdict.get("verdict", "")]
        lines.append(f"| {' | '.join(map(str, cells))} | {content['optimism'][name]:+.4f} |")
    return "\n".join([*lines, "", *(_found(name, row) for name, row in rows.items())])


def _found(name: str, row: Mapping[str, Any]) -> str:
    own, best = row["own"]["settings"], row["best"]["settings"]
    changed = ", ".join(f"{key} {as_text(value)}" for key, value in best.items() if own.get(key) != value)
    return f"- {label_of(name, row)}: trial {row['best']['trial'] + 1}, {changed or 'the recipe as it is'}"
