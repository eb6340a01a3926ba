"""What tables, pages and documents say below a comparison: how its verdicts were made, and how many seeds it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.compare.intervals import MOST_SEEDS
from limbeck.compare.labels import label_of


def procedure(comparison: Mapping[str, Any]) -> str:
    """How the verdicts of a compare.json were made, in one sentence or two."""
    rows: Sequence[Mapping[str, Any]] = [row for row in comparison["methods"].values() if "difference" in row]
    if len(rows) == 1:
        text = "verdict: better or worse where the simultaneous 95 % interval excludes 0"
    else:
        text = f"verdicts: better or worse where the 95 % intervals that hold for all {len(rows)} at once exclude 0"
    errors = {tuple(row.get("errors", ("seeds",))) for row in rows}
    both = errors == {("seeds", "test samples")}
    text += "; they contain the error from seeds" + (
        " and from test samples" if both else ", and hold for these test samples"
    )
    if count := comparison.get("teachers_varied"):
        text += f"; {count} teachers of different seeds took turns, and the students of one teacher are one pair"
    if plan := comparison.get("until"):
        looks = ", ".join(map(str, plan["looks"]))
        text += f"; seeds were added where a verdict was open: looks at {looks} seeds share the 5 % of error"
    return text


def needed(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """How many seeds would show a difference of a given size; nothing where no method has two seeds."""
    rows = {label_of(name, row): row["needed"] for name, row in methods.items() if "needed" in row}
    if not rows:
        return ""
    first = next(iter(rows.values()))
    each = ", ".join(f"{label} {_count(row['seeds'])}" for label, row in rows.items())
    return f"seeds that show a difference of {first['difference']:.4g} in {first['power']:.0%} of comparisons: {each}"


def ended(comparison: Mapping[str, Any]) -> str:
    """After how many epochs early stopping ended the students, by method and seed; nothing where it ended none."""
    rows = {label_of(name, row): row["epochs"] for name, row in comparison["methods"].items() if "epochs" in row}
    if not rows:
        return ""
    each = "; ".join(f"{label} {', '.join(f'{count:g}' for count in epochs)}" for label, epochs in rows.items())
    return f"early stopping: of {comparison['epochs']} epochs at most the students had, seed by seed: {each}"


def equal_time(comparison: Mapping[str, Any]) -> str:
    """How the students at equal time of a compare.json were trained, in a sentence or two."""
    timed = comparison["equal_time"]
    of = "what the baseline took" if timed["of"] == "baseline" else "as asked"
    text = (
        f"at equal time each method made as many steps as it makes in {timed['seconds']:.1f} s ({of}), by its seconds "
        "at equal steps: teacher passes and the writing of texts count. Times vary from run to run; the steps are "
        "written down, and a student is a function of them"
    )
    left = [label_of(name, comparison["methods"][name]) for name in timed.get("left", ())]
    return f"{text}. Left out, as the teacher's outputs alone take longer: {', '.join(left)}" if left else text


def _count(seeds: int | None) -> str:
    return f"more than {MOST_SEEDS:,}" if seeds is None else str(seeds)
