"""What the differences between methods show: means, intervals, and the verdict that the simultaneous one gives."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.compare.cells import BACKBONE, BASELINE
from limbeck.compare.intervals import CONFIDENCE, POWER, Interval, Paired, quantile, seeds_needed
from limbeck.compare.pairs import paired
from limbeck.errors import RequestError
from limbeck.runs.entry import score

BySeed = Mapping[int, Mapping[str, Any]]
"""A method's results by their seeds."""
DECIDED = ("better", "worse")
ONE_SEED, NONE_SHOWN = "one seed shows nothing", "no difference shown"
ROUNDING = 1e-6
"""Share of a score, other than an accuracy, by which rounding alone may move it; no spread is taken for less."""
VERDICT = ("difference", "interval", "simultaneous", "verdict")
"""What a method's entry in compare.json has that differs from the baseline's."""


@dataclass(frozen=True)
class Rules:
    """How verdicts are made, besides from the results.

    Attributes:
        samples: How many samples the test set has, where that is known: accuracies come in steps of one of them.
        groups: For each seed the number of its teacher, where the teacher varies.
        effect: The difference of which is said how many seeds would show it; None for `usual_effect`.
        share: Of the errors that intervals are allowed, the part that so many pairs may use: all of it where one looks
            at them once.
    """

    samples: int = 0
    groups: Mapping[int, int] | None = None
    effect: float | None = None
    share: Callable[[int], float] = lambda pairs: 1.0


def summarise(results: Mapping[str, BySeed], rules: Rules | None = None) -> dict[str, dict[str, Any]]:
    """Means, spreads, paired differences to the baseline and a verdict, from each method's results by seed.

    "interval" is Student's at 95 %, for one difference by itself. "simultaneous" is wider, at 1 − 0.05/m for m methods
    compared (Bonferroni): with 95 % confidence the intervals of all methods hold together. The verdict is what this one
    shows: better or worse where it excludes 0. "errors" says what both contain (`limbeck.compare.intervals`).

    Source: Dunn, "Multiple comparisons among means", JASA 1961.
    """
    rules = rules or Rules()
    baseline = _scores(results, BASELINE)
    rivals = len(results) - 1
    effect = usual_effect(results) if rules.effect is None else rules.effect
    early = any(one.get("stopped_early") for by_seed in results.values() for one in by_seed.values())
    summary = {}
    for name in results:
        scores, one = _scores(results, name), _first(results[name])
        entry: dict[str, Any] = {"seeds": list(scores), **_spread(scores)}
        seconds = list(_column(results, name, "seconds").values())
        entry["seconds"] = statistics.mean(seconds) if seconds else None
        if early:
            entry["epochs"] = list(_column(results, name, "epochs").values())
        entry["test"] = {metric: _mean(results[name], metric) for metric in one["test"]}
        entry |= {"monitor": one["monitor"], "mode": one["mode"]}
        if name != BASELINE:
            entry |= _beside(results, (name, scores), (BASELINE, baseline), rivals, rules, effect=effect)
        if each := _each(results, name, rules):
            entry["predictions"] = each
        summary[name] = entry
    return summary


def usual_effect(results: Mapping[str, BySeed]) -> float:
    """One point of an accuracy; of another score a hundredth of the baseline's."""
    monitor = _first(results[BASELINE])["monitor"]
    scores = _scores(results, BASELINE).values()
    return 0.01 if monitor == "accuracy" else 0.01 * abs(statistics.mean(scores))


def _each(results: Mapping[str, BySeed], name: str, rules: Rules) -> dict[str, dict[str, Any]]:
    """A method's exits (or peers), each like a method: beside the baseline's of the same name, and beside the backbone.

    The intervals beside the baseline are simultaneous for all exits of all methods; so are those beside the backbone.
    """
    given = {
        method: [figure for figure in _first(by_seed) if figure.startswith(f"test_{_first(by_seed)['monitor']}/")]
        for method, by_seed in results.items()
    }
    rivals = (len(results) - 1) * max(map(len, given.values()))
    alone = _scores(results, BACKBONE)
    entries = {}
    for figure in given[name]:
        scores, which = _column(results, name, figure), figure.partition("/")[2]
        entry = _spread(scores)
        if name != BASELINE:
            other = _column(results, BASELINE, figure)
            entry |= _beside(results, (name, scores), (BASELINE, other), rivals, rules, which, which)
        if name != BACKBONE and alone:
            entry[BACKBONE] = _beside(results, (name, scores), (BACKBONE, alone), rivals, rules, which)
        entries[which] = entry
    return entries


def _column(results: Mapping[str, BySeed], name: str, figure: str) -> dict[int, float]:
    """A figure of one method by seed; empty where the method is not there, or does not have it."""
    return {seed: result[figure] for seed, result in results.get(name, {}).items() if figure in result}


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
    results: Mapping[str, BySeed],
    one: tuple[str, Mapping[int, float]],
    other: tuple[str, Mapping[int, float]],
    rivals: int,
    rules: Rules,
    ours: str = "",
    theirs: str = "",
    effect: float | None = None,
) -> dict[str, Any]:
    """The differences in pairs of one seed; nothing where the two share none."""
    first = _first(results[one[0]])
    if first["monitor"] == "accuracy":
        least = 1 / rules.samples / math.sqrt(6) if rules.samples else 0.0
    else:
        least = ROUNDING * max(map(abs, other[1].values()), default=0.0)
    hits = [
        {seed: result["hits"][which] for seed, result in results[name].items() if which in result.get("hits", {})}
        for (name, _), which in ((one, ours), (other, theirs))
    ]
    found = paired(one[1], other[1], hits[0], hits[1], rules.groups, least)
    if found is None:
        return {}
    error, share = (1 - CONFIDENCE) / rivals, rules.share(len(found.pairs))
    entry = judged(found, error * share, first["mode"])
    if effect and len(found.pairs) > 1 and found.spread > found.least:  # of a floor nothing can be estimated
        pairs = seeds_needed(found, effect, error * share)
        students = len(set(one[1]) & set(other[1])) // len(found.pairs)  # of each teacher, where that varies
        entry["needed"] = {"difference": effect, "power": POWER, "seeds": pairs and pairs * students}
    return entry


def difference(pairs: Sequence[float], rivals: int = 1, resolution: float = 0.0, mode: str = "max") -> dict[str, Any]:
    """The mean of paired differences, its 95 % interval, the simultaneous one for so many rivals, and its verdict.

    Accuracies come in steps of `resolution`. Two of them, so rounded, leave a difference uncertain by a standard
    deviation of resolution / √6, and no spread is taken for less: a few seeds that agree to the sample prove nothing.

    Raises:
        RequestError: A difference is not finite.

    >>> difference([0.010, 0.012, 0.011])["verdict"]
    'better'
    >>> difference([0.010, -0.012, 0.011])["verdict"]
    'no difference shown'
    """
    if not all(map(math.isfinite, pairs)):
        raise RequestError(f"differences of scores are finite numbers, and these are {list(pairs)}")
    return judged(Paired(pairs, resolution / math.sqrt(6)), (1 - CONFIDENCE) / rivals, mode)


def judged(found: Paired, error: float, mode: str) -> dict[str, Any]:
    """A difference with both its intervals, and the verdict that the simultaneous one, at 1 − error, shows."""
    alone, together = found.interval(1 - CONFIDENCE), found.interval(error)
    return {
        "difference": found.mean,
        "interval": None if alone is None else list(alone),
        "simultaneous": None if together is None else list(together),
        "errors": ["seeds", *(["test samples"] if found.samples else [])],
        "verdict": verdict(together, mode),
    }


def verdict(simultaneous: Interval | None, mode: str) -> str:
    """What an interval shows: better or worse where it excludes 0."""
    if simultaneous is None:
        return ONE_SEED
    low, high = simultaneous
    if not (low > 0 or high < 0):  # which an interval that is no number is not either
        return NONE_SHOWN
    return "better" if (low > 0) == (mode == "max") else "worse"


def undecided(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The methods that are neither better nor worse than the baseline as far as one can see."""
    return [name for name, row in methods.items() if name != BASELINE and row.get("verdict") not in DECIDED]


def with_simultaneous(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """The methods of a compare.json, also of one that was written before it had simultaneous intervals.

    Their half-widths are those of the intervals there, times the ratio of Student's quantiles.
    """
    methods: Mapping[str, Any] = comparison["methods"]
    error = (1 - CONFIDENCE) / max(len(methods) - 1, 1)
    found = {}
    for name, row in methods.items():
        found[name] = dict(row)
        if "interval" in row and "simultaneous" not in row:
            pairs = len(set(row.get("seeds", comparison["seeds"])) & set(_seeds(methods[BASELINE], comparison)))
            found[name]["simultaneous"] = _widened(row, pairs, error)
    return found


def _seeds(row: Mapping[str, Any], comparison: Mapping[str, Any]) -> list[int]:
    return list(row.get("seeds", comparison["seeds"]))


def _widened(row: Mapping[str, Any], pairs: int, error: float) -> list[float] | None:
    if row["interval"] is None:
        return None
    wider = float(quantile(1 - error / 2, pairs - 1) / quantile((1 + CONFIDENCE) / 2, pairs - 1))
    half = wider * (row["interval"][1] - row["difference"])
    return [row["difference"] - half, row["difference"] + half]


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
