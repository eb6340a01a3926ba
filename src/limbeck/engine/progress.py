"""What a user sees while training: a bar on a terminal, a line an epoch elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from limbeck.notices import tell

__all__ = ["LOOK_EVERY", "Progress", "tell"]

LOOK_EVERY = {"bar": 0.5, "line": 5.0}
"""Seconds between two looks at the numbers on the device, where somebody watches them and where not."""


class Progress:
    """Shows how one training goes.

    Args:
        phase: What is being trained.
        epochs: Length of the run.
        steps: Steps of one epoch.
        shown: False shows nothing.
    """

    def __init__(self, phase: str, epochs: int, steps: int, shown: bool = True) -> None:
        self.phase, self.epochs, self.steps = phase, epochs, steps
        self.shown = shown
        self._bar: Bar | None = None
        if shown and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
            )  # fmt: skip
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(phase, total=epochs * steps, state="")
        self._every = LOOK_EVERY["bar" if self._bar else "line"]
        self._next_look = time.monotonic() + self._every

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def due(self) -> bool:
        """Whether it is time to look at the numbers again."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        return True

    def step(self, done: int, means: Mapping[str, float]) -> None:
        """Show where training stands after `done` steps in all."""
        if self._bar:
            epoch = min(done // self.steps + 1, self.epochs)
            state = f"epoch {epoch}/{self.epochs}  loss {means['loss']:.4f}  {_accuracy(means)}"
            self._bar.update(self._task, completed=done, state=state)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show the numbers of a finished epoch."""
        if self._bar:
            self.step(record["epoch"] * self.steps, record)
        elif self.shown:
            held_out = f"  val {record['val_accuracy']:.4f}" if "val_accuracy" in record else ""
            line = (
                f"{self.phase}  epoch {record['epoch']}/{self.epochs}  loss {record['loss']:.4f}  "
                f"{_accuracy(record)}{held_out}  {record['seconds']:.1f} s"
            )
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the display


def _accuracy(means: Mapping[str, float]) -> str:
    return f"accuracy {means['accuracy']:.4f}" if "accuracy" in means else "no labels"
