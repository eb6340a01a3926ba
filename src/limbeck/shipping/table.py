"""The table: the figures of every row on the test set and on this machine, and the frontier among them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from limbeck.errors import RequestError
from limbeck.models import multiply_adds
from limbeck.shipping import early, latency, memory, runners
from limbeck.shipping.chosen import Chosen, settle
from limbeck.shipping.plan import Plan
from limbeck.shipping.reading import Size
from limbeck.shipping.rows import Row
from limbeck.shipping.runners import torch_threads
from limbeck.shipping.score import Judged, figures
from limbeck.shipping.subjects import Case

LATENCY_SECONDS = 20.0
"""For one batch size, about."""
TINY = 10**7
"""Multiply-adds of a batch below which to quantise and to go back costs more than it saves."""


def judged(rows: list[Row], chosen: Mapping[str, Mapping[str, Chosen]]) -> list[Row]:
    """Read the test set for every row, and leave out the int8 files that it shows to be beyond the tolerance.

    Args:
        rows: All files.
        chosen: How int8 files were chosen, by case and network.
    """
    read = {row: found for case in _cases(rows) for row, found in _on_test(case, rows)}
    left = []
    for row in rows:
        if row.precision == "int8" and row.path is not None:
            fp32 = _beside(rows, row, row.subject.name, "onnx")
            how = chosen[row.case.name][row.subject.name]
            if fp32 is not None:
                settle(how, read[fp32], read[row], row.path)
            if how.refused:
                continue
        left.append(row)
    for row in left:
        baseline = _beside(left, row, "baseline", "torch")
        row.figures |= figures(read[row], read[baseline] if baseline else None)
    return left


def _cases(rows: Sequence[Row]) -> list[Case]:
    return list({id(row.case): row.case for row in rows}.values())


def _on_test(case: Case, rows: Sequence[Row]) -> Iterator[tuple[Row, Judged]]:
    """The rows of a case, each with its score on the test set; no outputs are kept of it."""
    own = [row for row in rows if row.case is case]
    files = [(row.packing.logits(row.run), row.read) for row in own]
    return zip(own, runners.judge(files, case.asked(case.test), case.task, keep=0), strict=True)


def _beside(rows: Sequence[Row], row: Row, model: str, runtime: str) -> Row | None:
    """The fp32 row of a model of the same case."""
    same = (one for one in rows if one.case is row.case and one.subject.name == model)
    return next((one for one in same if (one.runtime, one.precision) == (runtime, "fp32")), None)


def measured(rows: Sequence[Row], plan: Plan, tell: Callable[[str], None]) -> float:
    """Measure latency in turns, peak memory file by file, and count multiply-adds.

    Returns:
        The share of the time that other programs took, before and after each measurement of latency.
    """
    busy = [latency.busy()]
    for row in rows:
        row.figures |= {"latency": {}, "ratio_to_teacher": {}, "parameters": row.subject.parameters}
        if row.subject.name != early.NAME:
            row.figures["multiply_adds"] = _multiply_adds(row)
    for name, size in _sizes(rows, plan).items():
        tell(f"latency of {len(rows)} rows, batches of {name}, {plan.threads} thread(s)")
        _latencies(rows, name, size, plan.threads)
        busy.append(latency.busy())
    for row in rows:
        found = _peak(row, plan)
        row.figures |= {"peak_memory_bytes": found.bytes, "peak_memory_missing": found.missing}
    return statistics.fmean(busy)


def _peak(row: Row, plan: Plan) -> memory.Peak:
    if row.path is None or not plan.measure:
        return memory.Peak(None, memory.NO_FILE if row.path is None else memory.NOT_ASKED)
    found = memory.peak(row.path, row.runtime, row.subject.reading.example((1, None)), plan.threads)
    if found.missing:
        row.case.notes.append(f"{row.subject.name}: no peak memory of {row.path.name}: {found.missing}")
    return found


def _multiply_adds(row: Row) -> int | None:
    try:
        return multiply_adds(row.subject.network, row.subject.reading.inputs((1, None)))
    except Exception:  # a network of another framework that cannot be counted
        return None


def _sizes(rows: Sequence[Row], plan: Plan) -> dict[str, Size]:
    """The sizes that all rows can be measured at.

    Raises:
        RequestError: There is none.
    """
    each = [row.subject.reading.sizes(plan.batches) for row in rows]
    found = {name: size for name, size in each[0].items() if all(name in one for one in each)}
    if not found:
        raise RequestError("these networks read texts of no common length; ship them one by one")
    return found


def _latencies(rows: Sequence[Row], name: str, size: Size, threads: int) -> None:
    loaders = {str(number): _loader(row, size, threads) for number, row in enumerate(rows)}
    with torch_threads(threads):
        turns = latency.over_loads(lambda: {key: load() for key, load in loaders.items()}, LATENCY_SECONDS)
    for number, row in enumerate(rows):
        row.figures["latency"][name] = latency.figures(turns[str(number)], size[0])
        of = reference(rows, row)
        if of is not None:
            row.figures["ratio_to_teacher"][name] = latency.ratio(turns[str(number)], turns[str(rows.index(of))])


def reference(rows: Sequence[Row], row: Row) -> Row | None:
    """What a row is compared with in speed: its teacher in onnxruntime in fp32, or in torch where that is not there."""
    names = [one.name for one in row.case.references if one.name.startswith("teacher")]
    found = [_beside(rows, row, names[0], runtime) for runtime in ("onnx", "torch")] if names else []
    return next((one for one in found if one is not None), None)


def _loader(row: Row, size: Size, threads: int) -> Callable[[], latency.Run]:
    """What loads a row anew, to be run on samples that are read once."""
    if row.subject.name == early.NAME:
        run_early = early.over_samples(row, size[0])
        return lambda: run_early
    given = row.subject.reading.resized(row.read(next(iter(row.case.validation())).inputs), size)

    def load() -> latency.Run:
        run = row.loaded(threads)
        return lambda: run(given)

    return load


def first_size(entries: Sequence[Mapping[str, Any]]) -> str:
    """What the table calls the smallest size at which latency was measured."""
    return str(next(iter(entries[0]["latency"])))


def frontier(entries: Sequence[dict[str, Any]], mode: str) -> None:
    """Mark the rows to which no other one is at least as good in score and in latency, and better in one of them."""
    sign, size = 1 if mode == "max" else -1, first_size(entries)
    places = [(sign * one["score"], -one["latency"][size]["p50_ms"]) for one in entries]
    for entry, (score, speed) in zip(entries, places, strict=True):
        entry["frontier"] = not any(a >= score and b >= speed and (a, b) != (score, speed) for a, b in places)


def slower(entries: Sequence[Mapping[str, Any]], batch: int, machine: Mapping[str, Any]) -> list[str]:
    """A line for each int8 file that is slower here, or larger, than the fp32 file beside it, and why that may be."""
    lines, size = [], first_size(entries)
    for entry in entries:
        same = (one for one in entries if (one["run"], one["model"]) == (entry["run"], entry["model"]))
        fp32 = next((one for one in same if (one["runtime"], one["precision"]) == (entry["runtime"], "fp32")), None)
        if entry["precision"] != "int8" or fp32 is None:
            continue
        own, other = (one["latency"][size]["p50_ms"] for one in (entry, fp32))
        who = f"{entry['model']}, {entry['run']}"
        if own > other:
            reasons = ["this processor has no VNNI"] * machine["int8_overflows"]
            reasons += ["its layers are tiny"] * ((entry["multiply_adds"] or 0) * batch < TINY)
            why = f": {' and '.join(reasons)}" if reasons else ""
            lines.append(f"int8 is slower here than fp32 ({who}: {own:.3f} and {other:.3f} ms at batch {size}){why}")
        if entry["bytes"] > fp32["bytes"]:
            sizes = f"{entry['bytes']:,} and {fp32['bytes']:,} bytes"
            lines.append(f"int8 is larger than fp32 ({who}: {sizes}): it has fewer weights than scales and nodes")
    return lines
