"""Runs and comparisons of several recipes or machines in one table: a row a method, and columns for what differs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.compare.cells import BACKBONE, BASELINE, OWN, students_in
from limbeck.compare.labels import label_of, own_label
from limbeck.compare.verdicts import VERDICT, with_simultaneous
from limbeck.errors import RequestError
from limbeck.recipes.read import read
from limbeck.runs import identity
from limbeck.runs.entry import score
from limbeck.runs.folder import COMPARISON, RECIPE, read_result, student_folder
from limbeck.runs.identity import Identity

UNKNOWN = "not recorded"
NO_BUDGET = ("distill", "quantize", "seed", "machine", "versions")
"""In these, students of an equal budget may differ; epochs for int8 are a part of all epochs."""


@dataclass(frozen=True)
class Row:
    """One method in one folder.

    Attributes:
        folder: Where it was read.
        method: Its name.
        figure: Which test figure the values are.
        values: The figure by seed.
        made_of: What the students depend on, by dotted keys.
        verdict: Its comparison's `VERDICT`, if it has them.
        label: What it is called in tables.
    """

    folder: str
    method: str
    figure: str
    values: Mapping[int, float]
    made_of: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.mean(self.values.values())

    @property
    def std(self) -> float | None:
        """The sample standard deviation over the seeds; None of one seed."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Table:
    """Rows, and in which keys they differ.

    Attributes:
        rows: One a method and folder.
        differ: The dotted keys of recipe, data, versions and machine in which rows differ.
        unequal: Those among them that make a budget unequal: all but distill, versions and machine.
    """

    rows: Sequence[Row]
    differ: Sequence[str]
    unequal: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """All that the table says, for programs."""
        return {
            "equal_budget": not self.unequal,
            "differ": list(self.differ),
            "rows": [
                {
                    "folder": row.folder,
                    "method": row.method,
                    **({"label": row.label} if row.label not in ("", row.method) else {}),
                    "figure": row.figure,
                    "mean": row.mean,
                    "std": row.std,
                    "seeds": list(row.values),
                    "values": list(row.values.values()),
                    **row.verdict,
                    **{key: row.made_of.get(key) for key in self.differ},
                }
                for row in self.rows
            ],
        }


def table(folders: Sequence[Path]) -> Table:
    """The students of run folders and comparisons side by side.

    Args:
        folders: Of runs, comparisons, or one student of a comparison.

    Raises:
        RequestError: A folder holds nothing finished, or the figures of different tasks.
    """
    rows = [row for folder in folders for row in _rows(folder)]
    figures = {row.figure: row.folder for row in rows}
    if len(figures) > 1:
        held = ", ".join(f"{folder} has {figure}" for figure, folder in figures.items())
        raise RequestError(f"these folders have other figures ({held}); make a table of each kind")
    differ = _differing(rows)
    return Table(rows, differ, [key for key in differ if key.partition(".")[0] not in NO_BUDGET])


def _rows(folder: Path) -> Iterator[Row]:
    if (folder / COMPARISON).exists() or any(folder.glob("*-seed*/result.json")):
        yield from _of_comparison(folder)
        return
    result, made_of = read_result(folder), _flat(folder, folder)
    if "method" in result:
        yield _row(folder, result["method"], {result["seed"]: result}, made_of)
        return
    if "distilled" not in result:
        raise RequestError(f"{folder} holds no finished run or comparison")
    if "baseline" in result:
        alone = {key: value for key, value in made_of.items() if key.partition(".")[0] != "distill"}
        # As a comparison has it: "self" trains the exits of its baseline too.
        alone |= {"quantize.teacher": None} if "quantize.teacher" in made_of else {}
        alone |= {"distill.scheme": "self"} if made_of.get("distill.scheme") == "self" else {"distill": None}
        yield _row(folder, BASELINE, {result["seed"]: _judged(result, "baseline")}, alone)
    yield _row(folder, _method(folder), {result["seed"]: _judged(result, "distilled")}, made_of)


def _judged(result: Mapping[str, Any], student: str) -> Mapping[str, Any]:
    """What a run's student is compared by: where the recipe quantises it, its int8 file, as in a comparison."""
    return dict(result.get("int8", result)[student])


def _of_comparison(folder: Path) -> Iterator[Row]:
    """A row a method; a comparison that was interrupted has the students that are finished."""
    by_method: dict[str, dict[int, Mapping[str, Any]]] = {}
    for method, seed in sorted(students_in(folder), key=lambda one: one[1]):
        by_method.setdefault(method, {})[seed] = read_result(folder / student_folder(method, seed))
    comparison = _json(folder / COMPARISON)
    summed = with_simultaneous(comparison) if "methods" in comparison else {}
    order = [*filter(by_method.__contains__, summed), *(name for name in by_method if name not in summed)]
    for method in order:
        known = summed.get(method, {})
        first = folder / student_folder(method, min(by_method[method]))
        yield _row(folder, method, by_method[method], _flat(first, folder), known)


def _row(
    folder: Path,
    method: str,
    results: Mapping[int, Mapping[str, Any]],
    made_of: Mapping[str, Any],
    known: Mapping[str, Any] | None = None,
) -> Row:
    figure = next(iter(results.values()))["monitor"]
    scores = {seed: score(result) for seed, result in results.items()}
    summed = known or {}
    verdict = {key: summed[key] for key in VERDICT if key in summed}
    called = label_of(method, summed) if method != OWN or "label" in summed else label_in(folder)
    return Row(str(folder), method, figure, scores, made_of, verdict, called)


def label_in(folder: Path, others: Collection[str] = ()) -> str:
    """What the way to distil of the recipe in a folder does, beside other methods."""
    try:
        return own_label(read(str(folder / RECIPE)), others)
    except RequestError:  # its own code is not here
        return OWN


def _method(run: Path) -> str:
    """What a run's way of distilling is called: its recipe's method, or "recipe"."""
    try:
        return read(str(run / RECIPE)).distill.method or OWN
    except RequestError:  # its own code is not here
        return OWN


def _flat(student: Path, folder: Path) -> dict[str, Any]:
    """What a student depends on, by dotted keys; empty where that was not recorded."""
    made_of = identity.read(student)
    if made_of is None:
        return {}
    own = {key: made_of["recipe"].get(key) for key in ("distill", "quantize")}
    whole = {**without_method(made_of), **own, "machine": _machine(folder)}
    return dict(_leaves(whole))


def without_method(made_of: Identity) -> dict[str, Any]:
    """What must be the same in students of an equal budget: recipe but for method and seed, data, versions."""
    recipe = {key: value for key, value in made_of["recipe"].items() if key not in ("distill", "quantize", "seed")}
    splits = {name: split.get("portable", split["digest"]) for name, split in made_of["data"]["splits"].items()}
    return {**recipe, "data": {**recipe["data"], "samples": splits}, "versions": made_of["versions"]}


def _machine(folder: Path) -> dict[str, Any]:
    machine = _json(folder / "environment.json")
    return {"processor": ", ".join(machine.get("gpus") or ()) or machine.get("processor", UNKNOWN)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value))
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _differing(rows: Sequence[Row]) -> list[str]:
    """The keys in which rows differ; in its way of distilling, a row is compared with those of the same method."""
    known = [row for row in rows if row.method != BACKBONE]  # whose exit is its method
    keys = dict.fromkeys(key for row in known for key in row.made_of)
    return [key for key in keys if any(_differs(key, row, known) for row in known)]


def _differs(key: str, row: Row, rows: Sequence[Row]) -> bool:
    own = key.partition(".")[0] in ("distill", "quantize")
    beside = (other for other in rows if not own or other.method == row.method)
    return any(row.made_of.get(key, UNKNOWN) != other.made_of.get(key, UNKNOWN) for other in beside)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
