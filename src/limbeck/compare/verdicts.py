"""What the differences between methods show: means, intervals, and verdicts corrected for how many were compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.compare.cells import BACKBONE, SCRATCH
from limbeck.runs.entry import score

CONFIDENCE = 0.95
BySeed = Mapping[int, Mapping[str, Any]]
"""A method's results by their seeds."""


def summarise(results: Mapping[str, BySeed], samples: int = 0) -> dict[str, dict[str, Any]]:
    """Means, spreads, paired differences to scratch and a verdict, from each method's results by seed.

    The interval of a difference is Student's at 95 %, over the seeds that both have. The verdict rests on a wider one,
    at 1 − 0.05/m for m methods compared (Bonferroni), so that among many methods none is called better by luck alone.
    `samples` is how many the test set has, where that is known: accuracies come in steps of one of them.
    """
    resolution = _resolution(results, samples)
    scratch = _scores(results, SCRATCH)
    rivals = len(results) - 1
    summary = {}
    for name in results:
        scores, one = _scores(results, name), _first(results[name])
        entry: dict[str, Any] = {"seeds": list(scores), **_spread(scores)}
        seconds = list(_column(results, name, "seconds").values())
        entry["seconds"] = statistics.mean(seconds) if seconds else None
        entry["test"] = {metric: _mean(results[name], metric) for metric in one["test"]}
        entry |= {"monitor": one["monitor"], "mode": one["mode"]}
        if name != SCRATCH:
            entry |= _beside(scores, scratch, rivals, resolution, one["mode"])
        if each := _each(results, name, resolution):
            entry["predictions"] = each
        summary[name] = entry
    return summary


def _each(results: Mapping[str, BySeed], name: str, resolution: float) -> dict[str, dict[str, Any]]:
    """A method's exits (or peers), each like a method: beside scratch's of the same name, and beside the backbone.

    The verdicts beside scratch are corrected for all exits of all methods, and so are those beside the backbone.
    """
    given = {
        method: [figure for figure in _first(by_seed) if figure.startswith(f"test_{_first(by_seed)['monitor']}/")]
        for method, by_seed in results.items()
    }
    rivals = (len(results) - 1) * max(map(len, given.values()))
    alone, mode = _scores(results, BACKBONE), _first(results[name])["mode"]
    entries = {}
    for figure in given[name]:
        scores = _column(results, name, figure)
        entry = _spread(scores)
        if name != SCRATCH:
            entry |= _beside(scores, _column(results, SCRATCH, figure), rivals, resolution, mode)
        if name != BACKBONE and alone:
            entry[BACKBONE] = _beside(scores, alone, rivals, resolution, mode)
        entries[figure.partition("/")[2]] = entry
    return entries


def _column(results: Mapping[str, BySeed], name: str, figure: str) -> dict[int, float]:
    """A figure of one method by seed; empty where the method is not there, or does not have it."""
    return {seed: result[figure] for seed, result in results.get(name, {}).items() if figure in result}


def _resolution(results: Mapping[str, BySeed], samples: int) -> float:
    """What one sample of the test set counts in an accuracy; other scores have no steps."""
    one = next(one for by_seed in results.values() for one in by_seed.values())
    return 1 / samples if samples and one["monitor"] == "accuracy" else 0.0


def _first(by_seed: BySeed) -> Mapping[str, Any]:
    """One of a method's results."""
    return next(iter(by_seed.values()))


def _scores(results: Mapping[str, BySeed], name: str) -> dict[int, float]:
    """A method's scores, by the task's monitor, by seed; empty where it is not there."""
    return {seed: score(result) for seed, result in results.get(name, {}).items()}


def _mean(by_seed: BySeed, metric: str) -> float:
    """The mean of a metric over those seeds that have it."""
    values = [float(result["test"][metric]) for result in by_seed.values() if metric in result["test"]]
    return statistics.mean(values)


def _spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    values = list(by_seed.values())
    return {"scores": values, "mean": statistics.mean(values), "std": _std(values)}


def _beside(
    one: Mapping[int, float], other: Mapping[int, float], rivals: int, resolution: float, mode: str
) -> dict[str, Any]:
    """The differences in pairs of one seed; nothing where the two share none."""
    pairs = [value - other[seed] for seed, value in one.items() if seed in other]
    return difference(pairs, rivals, resolution, mode) if pairs else {}


def difference(pairs: Sequence[float], rivals: int = 1, resolution: float = 0.0, mode: str = "max") -> dict[str, Any]:
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
    gain = mean if mode == "max" else -mean
    verdict = "better" if gain > strict else "worse" if gain < -strict else "no difference shown"
    return {"difference": mean, "interval": [mean - half, mean + half], "verdict": verdict}


def _half_width(values: Sequence[float], error: float, least: float) -> float | None:
    from scipy import stats

    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf(1 - error / 2, len(values) - 1))
    return quantile * max(statistics.stdev(values), least) / math.sqrt(len(values))


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
