"""A clock that jumps by a year, forwards and back, while a command runs and while it lies killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from benchmarks.faults.contents import negative_times
from benchmarks.faults.forked import go, start
from benchmarks.faults.rows import Row
from benchmarks.faults.trials import Trial

YEAR = 365.25 * 24 * 3600


def jumping_clock(trial: Trial, tries: int, seed: int) -> Row:
    """Carry out, kill and resume a command under a clock that jumps; the files' own times jump while it lies killed."""
    row = Row(f"clock that jumps by a year, {trial.name}", "the same bytes, no negative seconds")
    for number in range(tries):
        draw = random.Random(f"{trial.name} {seed} {number}")
        trial.begin()
        jumps = jumping(draw.random())
        if number % 2:
            process = start(trial.place, trial.words, before=jumps)
            time.sleep(draw.uniform(0.3, 0.9) * trial.seconds)
            process.end(signal.SIGKILL)
            _age(trial, draw.choice((-YEAR, YEAR)))
        ended = go(trial.place, trial.resumed if number % 2 else trial.words, before=jumps)
        row.add(f"clock {number}{', resumed' if number % 2 else ''}", trial.wrong(ended) + negative_times(trial.place))
    row.note = "time.time and time.time_ns of the process"
    return row


def jumping(seed: float) -> Callable[[], None]:
    """What makes a process's clock jump about every tenth time that it is read."""

    def install() -> None:
        draw, offset = random.Random(seed), 0.0
        seconds, nanoseconds = time.time, time.time_ns

        def shift() -> float:
            nonlocal offset
            if draw.random() < 0.1:
                offset = draw.choice((-YEAR, 0.0, YEAR))
            return offset

        time.time = lambda: seconds() + shift()
        time.time_ns = lambda: nanoseconds() + int(shift()) * 10**9

    return install


def _age(trial: Trial, shift: float) -> None:
    for root in (trial.place.work, trial.place.cache):
        for path in root.rglob("*"):
            state = path.stat()
            os.utime(path, (state.st_atime + shift, state.st_mtime + shift))
