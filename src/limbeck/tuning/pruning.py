"""When a trial has lost: compared, epoch by epoch, with the best one so far of the same seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

LEAST = 0.25
"""Share of the epochs that every trial has at least."""
WINDOW = 0.2
"""Share of the epochs over which it must lie behind, without a break."""


def hopeless(
    curve: Sequence[float], incumbent: Sequence[float], epochs: int, mode: str = "max", samples: int = 0
) -> bool:
    """Whether a trial lies behind the incumbent, and will not catch up by its last epoch.

    Both train the same start on the same batches in the same order, and are scored on the same samples: so they are
    compared in pairs of one epoch, and not with the median of trials that are in other epochs of their schedules. It
    has lost if it lies behind by more than chance in each epoch of the last fifth, and still would in the last epoch
    if it went on to catch up as fast as it does.

    Args:
        curve: Its validation scores, by epoch, so far.
        incumbent: Those of the best trial so far.
        epochs: How many there are in all.
        mode: "max" where a higher score is better, else "min".
        samples: Of the validation set, where scores are accuracies on it: then a difference counts from one standard
            error on, as two accuracies on the same samples can have it (`lead_by_chance`); 0 counts any.

    >>> hopeless([0.1, 0.2, 0.3, 0.4], [0.7, 0.8, 0.8, 0.8], epochs=20)
    False
    >>> hopeless([0.3, 0.3, 0.3, 0.3, 0.3], [0.7, 0.8, 0.8, 0.8, 0.8], epochs=20)
    True
    """
    done, window = len(curve), max(2, math.ceil(WINDOW * epochs))
    if done < max(window, math.ceil(LEAST * epochs)) or done >= epochs or done > len(incumbent):
        return False
    pairs = list(zip(curve, incumbent, strict=False))[done - window :]
    gaps = [one - other if mode == "max" else other - one for one, other in pairs]
    chance = max(lead_by_chance(one, other, samples) for one, other in pairs)
    gain = max(0.0, statistics.linear_regression(range(window), gaps).slope)
    return max(gaps) < -chance and gaps[-1] + gain * (epochs - done) < -chance


def lead_by_chance(one: float, other: float, samples: int) -> float:
    """One standard error of the difference of two accuracies on the same samples, at most.

    They differ on those samples alone that one of both has wrong: √(e₁ + e₂) / √n for the errors e₁ and e₂.

    >>> round(lead_by_chance(0.92, 0.92, 400), 4)
    0.02
    """
    return math.sqrt(max(0.0, 2 - one - other) / samples) if samples else 0.0
