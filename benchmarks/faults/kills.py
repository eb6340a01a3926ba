"""kill -9 at random moments, and before each change of a file: what is resumed comes to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.forked import Place, start
from benchmarks.faults.rows import Row
from benchmarks.faults.trials import Trial

MOST = 3
"""Kills of one trial at most: the resumed one is killed again."""
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Events of Python's audit by which a file changes, besides opening it to write."""


def random_kills(trial: Trial, kills: int, seed: int, fresh: int = 0) -> Row:
    """Kill a command and its resumptions, until so many are killed; the first `fresh` trials start Python anew."""
    row = Row(f"kill -9 at random moments, {trial.name}", "resumed, the same bytes, nothing left over")
    draw = random.Random(f"{trial.name} {seed}")
    made, met = 0, Counter[str]()
    lives = {False: trial.seconds, True: _life(trial) if fresh else 0.0}
    while made < kills:
        trial.begin()
        anew = row.tried < fresh
        life = lives[anew]
        moments = []
        for attempt in range(min(draw.randint(1, MOST), kills - made)):
            moments.append(round(draw.uniform(0, life), 4))
            process = start(trial.place, trial.resumed if attempt else trial.words, fresh=anew)
            ended, seconds = process.stop(signal.SIGKILL, moments[-1])
            if ended.status != -signal.SIGKILL:  # it was done before: moments are drawn from a shorter life from now on
                moments.pop()
                lives[anew] = seconds
                break
            made += 1
            met[stage(trial.place)] += 1
        if moments:
            row.add(f"killed after {moments} s{' (fresh)' if anew else ''}", trial.finish(fresh=anew))
    row.note = f"{made} kills: " + ", ".join(f"{name} {count}" for name, count in met.most_common())
    return row


def kills_at_changes(trial: Trial, most: int, seed: int) -> Row:
    """Kill a command right before one change of a file, for each change (or as many, drawn at random) that it makes."""
    row = Row(f"kill -9 before a change of a file, {trial.name}", "resumed, the same bytes, nothing left over")
    trial.begin()
    counted = trial.place.root.parent / "changes"
    process = start(trial.place, trial.words, before=lambda: watch(trial.place, lambda n: counted.write_text(str(n))))
    process.wait()
    number = int(counted.read_text())
    chosen = random.Random(f"{trial.name} {seed}").sample(range(1, number + 1), min(most, number))
    for which in sorted(chosen):
        trial.begin()
        ended = start(trial.place, trial.words, before=lambda n=which: watch(trial.place, killer(n))).wait()  # type: ignore[misc]
        faults = [] if ended.status == -signal.SIGKILL else [f"it was not killed: {ended.told}"]
        row.add(f"before change {which} of {number}", faults + trial.finish())
    row.note = f"{number} changes in all"
    return row


def killer(number: int) -> Callable[[int], object]:
    """What kills its own process at the so-manieth change."""

    def at(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def watch(place: Place, at: Callable[[int], object]) -> None:
    """Call `at` with their count before each change of a file of the place, by whatever code of this process."""
    roots, count, inside = (str(place.work), str(place.cache)), 0, False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, inside
        if inside or not _is_change(event, arguments):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(roots):
            count, inside = count + 1, True
            at(count)
            inside = False

    sys.addaudithook(look)


def _is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    if event != "open":
        return event in CHANGES and isinstance(arguments[0], str | bytes | os.PathLike)
    path, _, flags = arguments
    return isinstance(path, str | bytes | os.PathLike) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def stage(place: Place) -> str:
    """How far a command had come, by what it has left."""
    out = place.work / "out"
    stored = list(place.cache.glob("teacher_outputs/*/view-*"))
    if any(path.name.endswith(".part") for root in (place.work, place.cache) for path in root.rglob(".*")):
        return "writing a file"
    if (out / "result.json").exists() or (out / "compare.json").exists():
        return "after the result"
    phases = [json.loads(line)["phase"] for path in out.rglob("metrics.jsonl") for line in _whole_lines(path)]
    if "student" in phases or "baseline" in phases:
        return "training students"
    if stored:
        return "storing teacher outputs"
    training = list(place.cache.glob("teachers/*.training"))
    return "training the teacher" if phases or training or (out / "recipe.yaml").exists() else "starting"


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _life(trial: Trial) -> float:
    """How long a process takes that starts Python anew."""
    trial.begin()
    began = time.perf_counter()
    start(trial.place, trial.words, fresh=True).wait()
    return time.perf_counter() - began
