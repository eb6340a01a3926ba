"""A line each minute while samples pass that no training counts: a teacher is asked about all of them, or a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from time import monotonic

from limbeck.notices import tell
from limbeck.types import Batch

EVERY = 60.0
"""Seconds between two lines."""


class EachMinute:
    """Says how far a count of samples has come, and how long the rest will take.

    Args:
        what: What passes, such as "test".
        samples: Number of samples in all.
        shown: False says nothing.
    """

    def __init__(self, what: str, samples: int, shown: bool = True) -> None:
        self.what, self.samples, self.shown = what, samples, shown
        self._done = 0
        self._began = self._said = monotonic()

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches as they are, counted once they have been dealt with."""
        for batch in batches:
            yield batch
            self._done += batch.size
            self._tell()

    def _tell(self) -> None:
        now = monotonic()
        if not self.shown or now - self._said < EVERY or self._done >= self.samples:
            return
        self._said = now
        left = timedelta(seconds=round((now - self._began) / self._done * (self.samples - self._done)))
        tell(f"{self.what}: {self._done:,} of {self.samples:,} samples, {left} left")


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
