"""What the differences between methods show: means, intervals, and verdicts corrected for how many were compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.compare.cells import BACKBONE, SCRATCH

EACH = "test_accuracy/"
CONFIDENCE = 0.95
BySeed = Mapping[int, Mapping[str, Any]]
"""A method's results by their seeds."""


def summarise(results: Mapping[str, BySeed], resolution: float = 0.0) -> dict[str, dict[str, Any]]:
    """Means, spreads, paired differences to scratch and a verdict, from each method's results by seed.

    The interval of a difference is Student's at 95 %, over the seeds that both have. The verdict rests on a wider one,
    at 1 − 0.05/m for m methods compared (Bonferroni), so that among many methods none is called better by luck alone.
    `resolution` is what one sample of the test set counts.
    """
    scratch = _column(results, SCRATCH, "test_accuracy")
    rivals = len(results) - 1
    summary = {}
    for name in results:
        accuracy = _column(results, name, "test_accuracy")
        entry: dict[str, Any] = {"seeds": list(accuracy), **_spread(accuracy)}
        for figure in ("test_agreement", "seconds"):
            values = list(_column(results, name, figure).values())
            entry[figure.removeprefix("test_")] = statistics.mean(values) if values else None
        if name != SCRATCH:
            entry |= _beside(accuracy, scratch, rivals, resolution)
        if each := _each(results, name, resolution):
            entry["predictions"] = each
        summary[name] = entry
    return summary


def _each(results: Mapping[str, BySeed], name: str, resolution: float) -> dict[str, dict[str, Any]]:
    """A method's exits (or peers), each like a method: beside scratch's of the same name, and beside the backbone.

    The verdicts beside scratch are corrected for all exits of all methods, and so are those beside the backbone.
    """
    given = {
        method: [figure for figure in next(iter(by_seed.values())) if figure.startswith(EACH)]
        for method, by_seed in results.items()
    }
    rivals = (len(results) - 1) * max(map(len, given.values()))
    alone = _column(results, BACKBONE, "test_accuracy")
    entries = {}
    for figure in given[name]:
        accuracy = _column(results, name, figure)
        entry = _spread(accuracy)
        if name != SCRATCH:
            entry |= _beside(accuracy, _column(results, SCRATCH, figure), rivals, resolution)
        if name != BACKBONE and alone:
            entry[BACKBONE] = _beside(accuracy, alone, rivals, resolution)
        entries[figure.removeprefix(EACH)] = entry
    return entries


def _column(results: Mapping[str, BySeed], name: str, figure: str) -> dict[int, float]:
    """A figure of one method by seed; empty where the method is not there, or does not have it."""
    return {seed: result[figure] for seed, result in results.get(name, {}).items() if figure in result}


def _spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    values = list(by_seed.values())
    return {"accuracies": values, "mean": statistics.mean(values), "std": _std(values)}


def _beside(one: Mapping[int, float], other: Mapping[int, float], rivals: int, resolution: float) -> dict[str, Any]:
    """The differences in pairs of one seed; nothing where the two share none."""
    pairs = [value - other[seed] for seed, value in one.items() if seed in other]
    return difference(pairs, rivals, resolution) if pairs else {}


def difference(pairs: Sequence[float], rivals: int = 1, resolution: float = 0.0) -> dict[str, Any]:
    """The mean of paired differences, its 95 % interval, and a verdict corrected for the number of rivals.

    Accuracies come in steps of `resolution`. Two of them, so rounded, leave a difference uncertain by a standard
    deviation of resolution / √6, and no spread is taken for less: a few seeds that agree to the sample prove nothing.

    >>> difference([0.010, 0.012, 0.011])["verdict"]
    'better'
    >>> difference([0.010, -0.012, 0.011])["verdict"]
    'no difference shown'
    """
    mean = statistics.mean(pairs)
    least = resolution / math.sqrt(6)
    half, strict = (_half_width(pairs, error, least) for error in (1 - CONFIDENCE, (1 - CONFIDENCE) / rivals))
    if half is None or strict is None:
        return {"difference": mean, "interval": None, "verdict": "one seed shows nothing"}
    verdict = "better" if mean > strict else "worse" if mean < -strict else "no difference shown"
    return {"difference": mean, "interval": [mean - half, mean + half], "verdict": verdict}


def _half_width(values: Sequence[float], error: float, least: float) -> float | None:
    from scipy import stats

    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf(1 - error / 2, len(values) - 1))
    return quantile * max(statistics.stdev(values), least) / math.sqrt(len(values))


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
