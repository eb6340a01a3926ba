"""Means over the samples of an epoch, from sums that are exact however they were gathered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

Sums = dict[str, list[float]]
"""By name: the number of samples, then numbers that add up to the sum over them."""


class Totals:
    """Running sums by name. They are exact, so that a mean depends neither on the order of its samples nor on when they
    were added, by which process, or before or after an interruption.

    Args:
        sums: What was gathered before, as `sums` has it.

    >>> totals = Totals()
    >>> totals.add("loss", 3, [2 * 0.1, 0.4])
    >>> totals.means()
    {'loss': 0.2}
    """

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None) -> None:
        self.sums: Sums = {name: list(numbers) for name, numbers in (sums or {}).items()}

    def add(self, name: str, samples: float, values: Iterable[float]) -> None:
        """Take in so many samples more, and numbers, all finite, that add up to the sum over them."""
        before, *parts = self.sums.get(name, [0.0])
        self.sums[name] = [before + samples, *_exact([*parts, *values])]

    def merge(self, others: Iterable[Mapping[str, Sequence[float]]]) -> None:
        """Take in the sums of others, whose names may be different ones."""
        for sums in others:
            for name, (samples, *parts) in sums.items():
                self.add(name, samples, parts)

    def means(self) -> dict[str, float]:
        """The mean over samples under each name; none where there was no sample."""
        return {name: math.fsum(parts) / samples for name, (samples, *parts) in self.sums.items() if samples}


def _exact(numbers: Sequence[float]) -> list[float]:
    """A few numbers with the same exact sum: their rounded sum, what that leaves out, and so on."""
    parts: list[float] = []
    while rest := math.fsum([*numbers, *(-part for part in parts)]):
        parts.append(rest)
    return parts
