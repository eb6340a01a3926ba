"""A line each minute while samples pass that no training counts: a teacher is asked, or a model is tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from time import monotonic

from limbeck.notices import tell
from limbeck.types import Batch

EVERY = 60.0
"""Seconds between two lines."""


class EachMinute:
    """Says how far a count has come, and how long the rest will take.

    Args:
        what: What passes, such as "test".
        total: How many there are in all; 0 where nobody knows it.
        shown: False says nothing.
        unit: What is counted.
    """

    def __init__(self, what: str, total: int, shown: bool = True, unit: str = "samples") -> None:
        self.what, self.total, self.shown, self.unit = what, total, shown, unit
        self._done = 0
        self._began = self._said = monotonic()

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as they are, counted once they have been dealt with."""
        for batch in batches:
            yield batch
            self.passed(batch.size)

    def passed(self, count: int) -> None:
        """So many more have been dealt with."""
        self._done += count
        now = monotonic()
        if self.shown and now - self._said >= EVERY and self._done != self.total:
            self._said = now
            tell(f"{self.what}: {self._so_far(now)}")

    def _so_far(self, now: float) -> str:
        if self._done > self.total:
            return f"{self._done:,} {self.unit}"
        left = timedelta(seconds=round((now - self._began) / self._done * (self.total - self._done)))
        return f"{self._done:,} of {self.total:,} {self.unit}, {left} left"


class Passing:
    """Batches that are read as often as one wants, with a line each minute of every reading.

    Args:
        batches: The batches, read anew each time.
        what: What they are for.
        samples: Number of samples in one reading.
        shown: False says nothing.
    """

    def __init__(self, batches: Iterable[Batch], what: str, samples: int, shown: bool) -> None:
        self._batches, self._about = batches, (what, samples, shown)

    def __iter__(self) -> Iterator[Batch]:
        return EachMinute(*self._about).over(self._batches)
