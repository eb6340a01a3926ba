"""What result.json and compare.json say of a tested model: all metrics, and which of them counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from limbeck.errors import RunError

if TYPE_CHECKING:
    from limbeck.measure.evaluation import Evaluation
    from limbeck.recipes.schema import Recipe


def tested(metrics: Mapping[str, float], monitor: str, mode: str) -> dict[str, Any]:
    """The entry of a model: `test` with all its metrics, `monitor` and `mode`, and `test_MONITOR` by itself.

    Raises:
        RunError: The monitor is no number.
    """
    if monitor not in metrics:  # which has no place for a NaN
        raise RunError(f"the {label(monitor)} on held-out samples is no number: the outputs there are not finite")
    return {f"test_{monitor}": metrics[monitor], "test": dict(metrics), "monitor": monitor, "mode": mode}


def entry_of(evaluation: Evaluation) -> dict[str, Any]:
    """What result.json says of a tested model."""
    return tested(evaluation.metrics, evaluation.monitor, evaluation.mode)


def trial(recipe: Recipe) -> dict[str, Any]:
    """What a result says of a trial, whose data were limited; nothing of a whole run."""
    return {"trial": recipe.data.trial} if recipe.data.trial else {}


def score(entry: Mapping[str, Any]) -> float:
    """The metric of an entry that counts."""
    return float(entry["test"][entry["monitor"]])


def check_finite(entry: Mapping[str, Any]) -> None:
    """Raise RunError for an entry whose score is infinite, and so cannot be compared."""
    if not math.isfinite(score(entry)):
        raise RunError(f"the {label(entry['monitor'])} on held-out samples is {score(entry)}, and cannot be compared")


def metric(entry: Mapping[str, Any], name: str) -> float | None:
    """A metric of an entry, None where it has none of that name."""
    value = entry.get("test", {}).get(name)
    return None if value is None else float(value)


def in_int8(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The int8 files that a run's result has figures of, by what tables call them; none without `quantize`."""
    names = {"baseline": "baseline, int8", "distilled": "distilled student, int8"}
    return {names[student]: entry for student, entry in result.get("int8", {}).items()}


def advantage(entry: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """By how much an entry is better than another, in the units of their monitor: above 0 is better in either mode."""
    difference = score(entry) - score(other)
    return difference if entry["mode"] == "max" else -difference


def monitor_of(comparison: Mapping[str, Any]) -> str:
    """The metric by which the methods of a comparison are compared."""
    first: Mapping[str, Any] = next(iter(comparison["methods"].values()))
    return str(first["monitor"])


def span(interval: Sequence[float] | None) -> str:
    """An interval of a difference in words; a dash where there is none.

    >>> span([-0.01, 0.02])
    '-0.0100 to +0.0200'
    """
    return "–" if interval is None else "{:+.4f} to {:+.4f}".format(*interval)


def label(name: str) -> str:
    """A metric's name in words.

    >>> label("calibration_error"), label("mean_iou")
    ('calibration error', 'mean IoU')
    """
    words = {"iou": "IoU", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "f1": "F1"}
    return " ".join(words.get(word, word) for word in name.split("_"))
