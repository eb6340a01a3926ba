"""A `limbeck` command as a process that can be killed after milliseconds of work.

A process takes seconds to import torch, and most kills would fall there. So this process imports limbeck once, computes
nothing itself, and forks: the child is a process of its own, with its own files, locks and memory, and begins its
command at once. `fresh` starts `python -m limbeck` instead.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

BEGINS = "limbeck: there is nothing to resume"
TIMEOUT = 300.0
"""Seconds after which a process counts as hung."""
IMPORTED = ("limbeck.cli.main", "limbeck.cli.show", "limbeck.compare", "limbeck.runs.outputs.beforehand",
            "limbeck.runs.run", "limbeck.report.charts", "sklearn.datasets", "torchvision")  # fmt: skip


def nothing() -> None:
    """What is done in a child before its command."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: Its exit status; minus the signal's number where a signal ended it; None where it hung.
        lines: What it wrote to stderr.
    """

    status: int | None
    lines: list[str]

    @property
    def told(self) -> str:
        return f"exit {self.status}: {' / '.join(self.lines[-3:])[:300]}"

    @property
    def line(self) -> str:
        """What it ended with, if that is one line of limbeck's; what it decided on its way does not count."""
        lines = [line for line in self.lines if not line.startswith(BEGINS)]
        return lines[0] if len(lines) == 1 and lines[0].startswith("limbeck: ") else ""


@dataclass(frozen=True)
class Place:
    """Where commands are tried: always at the same path, so that paths in results are the same.

    Attributes:
        root: Everything.
        work: The current folder of the commands.
        cache: limbeck's cache.
    """

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def clear(self) -> None:
        """Begin with nothing there."""
        for path in (self.work, self.cache):
            shutil.rmtree(path, ignore_errors=True)
        self.work.mkdir(parents=True)


@dataclass(frozen=True)
class Started:
    """A process at work."""

    pid: int
    said: Path

    def end(self, number: int) -> Ended:
        """Send it a signal, and wait for it."""
        os.kill(self.pid, number)  # it is not waited for yet, so the number is still its own
        return self.wait()

    def stop(self, number: int, after: float) -> tuple[Ended, float]:
        """Send it a signal after so many seconds, if it has not ended before; how it ended, and how long it took."""
        began = time.monotonic()
        while time.monotonic() < began + after:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(min(0.002, after))
        ended = self.end(number)
        return ended, time.monotonic() - began

    def wait(self) -> Ended:
        """How it ends by itself."""
        limit = time.monotonic() + TIMEOUT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return Ended(os.waitstatus_to_exitcode(status), self.said.read_text(errors="replace").splitlines())
            if time.monotonic() > limit:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return Ended(None, ["it hung"])
            time.sleep(0.002)


def ready() -> None:
    """Import what commands need, so that children begin at once."""
    for name in IMPORTED:
        importlib.import_module(name)
    torch.set_num_threads(1)


def start(
    place: Place,
    words: Sequence[str],
    *,
    fresh: bool = False,
    before: Callable[[], None] = nothing,
    name: str = "said",
) -> Started:
    """Start `limbeck WORDS --quiet` in a place.

    Args:
        place: Its current folder and cache.
        words: The command and its arguments.
        fresh: Start Python anew.
        before: What a forked child does first.
        name: Of the file, outside of the place's folders, that gets what it says.
    """
    said = place.root.parent / f"{name}.txt"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(place, [*words, "--quiet"], said, fresh, before)
    return Started(pid, said)


def go(place: Place, words: Sequence[str], *, fresh: bool = False, before: Callable[[], None] = nothing) -> Ended:
    """Carry out a command to its end."""
    return start(place, words, fresh=fresh, before=before).wait()


def fork(place: Place, work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin something in a process of its own; what is returned waits, and gives what it returns, as JSON holds it.

    Raises:
        RuntimeError: It fails, when it is waited for.
    """
    place.clear()
    answer = place.root.parent / "answer.json"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            answer.write_text(json.dumps(work()), encoding="utf-8")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def wait() -> Any:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0:
            raise RuntimeError(f"a process for {place.root} ended with {status}")
        return json.loads(answer.read_text(encoding="utf-8"))

    return wait


def _child(place: Place, words: list[str], said: Path, fresh: bool, before: Callable[[], None]) -> NoReturn:
    status = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
        os.chdir(place.work)
        os.environ["LIMBECK_CACHE"] = str(place.cache)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "limbeck", *words])
        sys.argv = ["limbeck", *words]
        before()
        importlib.import_module("limbeck.cli.main").main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)
