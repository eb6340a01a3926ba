"""What a user sees while training: a bar on a terminal, a line an epoch elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.notices import alone, named, tell
from limbeck.tasks import Classification, Task

__all__ = ["LOOK_EVERY", "Progress", "tell"]

LOOK_EVERY = {"bar": 0.5, "line": 5.0}
"""Seconds between two looks at the numbers on the device, where somebody watches them and where not."""
FIRST_LINE = 10.0
"""Seconds after which the first of these is written, which says how long all will take."""
LINE_EVERY = 60.0
"""Seconds after which a line is written within an epoch, where no bar is shown."""


class Progress(Callback):
    """Shows how one training goes: on a terminal a bar, elsewhere a line an epoch, and in a long one a line
    after ten seconds and each minute.

    Args:
        phase: What is being trained.
        epochs: Length of the run.
        steps: Steps of one epoch.
        shown: False shows nothing.
        task: Whose figures are shown.
    """

    def __init__(self, phase: str, epochs: int, steps: int, shown: bool = True, task: Task | None = None) -> None:
        self.phase, self.epochs, self.steps = phase, epochs, steps
        self.shown = shown
        self.task = task or Classification()
        self._bar: Bar | None = None
        if shown and alone() and sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(phase, total=epochs * steps, state="")
        self._every = LOOK_EVERY["bar" if self._bar else "line"]
        self._next_look = time.monotonic() + self._every
        self._next_line = time.monotonic() + FIRST_LINE
        self._since: tuple[int, float] | None = None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    def step_end(self, training: Training) -> None:
        """Show where training stands, where it is time to look; also without a display, for a look finds a NaN."""
        if self.due():
            self.step((training.epoch - 1) * self.steps + training.step, training.means())

    def epoch_end(self, training: Training) -> None:
        """Show the finished epoch."""
        if training.record is not None:
            self.epoch(training.record)

    def due(self) -> bool:
        """Whether it is time to look at the numbers again."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        return True

    def step(self, done: int, means: Mapping[str, float]) -> None:
        """Show where training stands after `done` steps in all."""
        now = time.monotonic()
        self._since = self._since or (done, now)
        number = min(done // self.steps + 1, self.epochs)
        epoch, step = f"{self.phase}  epoch {number}/{self.epochs}", f"step {done % self.steps}/{self.steps}"
        figures, pace = f"loss {means['loss']:.4f}  {self._score(means)}", self._pace(done, now)
        if self._bar:  # in two lines, which 80 columns hold
            self._bar.update(self._task, completed=done, description=epoch, state=f"{pace}\n{figures}  {step}")
        elif self.shown and now >= self._next_line and pace:
            self._next_line = now + LINE_EVERY
            _print(f"{epoch}  {figures}  {step}  {pace}")

    def _pace(self, done: int, now: float) -> str:
        """Steps a second since the first look, and the time that the epoch and the whole take yet."""
        if self._since is None or done <= self._since[0]:
            return ""
        rate = (done - self._since[0]) / max(now - self._since[1], 1e-9)
        ends = (self.steps - done % self.steps, self.epochs * self.steps - done)
        epoch, whole = (timedelta(seconds=round(steps / rate)) for steps in ends)
        return f"{rate:,.1f} steps/s  left: epoch {epoch}, all {whole}"

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show the numbers of a finished epoch."""
        if self._bar:
            self.step(record["epoch"] * self.steps, record)
        elif self.shown:
            validated = record.get(f"val_{self.task.monitor}")
            held_out = "" if validated is None else f"  val_{self.task.monitor} {validated:.4f}"
            line = (
                f"{self.phase}  epoch {record['epoch']}/{self.epochs}  loss {record['loss']:.4f}  "
                f"{self._score(record)}{held_out}  {record['seconds']:.1f} s"
            )
            self._next_line = time.monotonic() + LINE_EVERY
            _print(line)

    def _score(self, means: Mapping[str, float]) -> str:
        name = self.task.running
        if name is None:
            return ""
        return f"{name} {means[name]:.4f}" if name in means else "no labels"


def _print(line: str) -> None:
    print(named(line), file=sys.stderr, flush=True)  # noqa: T201 - this is the display
