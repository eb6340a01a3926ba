"""Two processes at once: into one folder, into folders of their own, and over one cache."""

from __future__ import annotations

import random
import signal
import time

from benchmarks.faults.contents import contents, differences
from benchmarks.faults.forked import Ended, start
from benchmarks.faults.rows import Row
from benchmarks.faults.trials import Trial


def one_folder(trial: Trial, tries: int, seed: int) -> Row:
    """Start a command twice into one folder, a random time apart; every second pair resumes a killed one."""
    row = Row(
        f"two processes into one folder, {trial.name}", "one goes on, the other exits 2 with one line; the same bytes"
    )
    draw = random.Random(f"{trial.name} {seed}")
    for number in range(tries):
        trial.begin()
        words = trial.words
        if number % 2:
            killed = start(trial.place, words)
            time.sleep(draw.uniform(0.3, 0.7) * trial.seconds)
            killed.end(signal.SIGKILL)
            words = trial.resumed
        apart = draw.choice((0.0, draw.uniform(0, 0.3) * trial.seconds))
        pair = _pair(trial, words, words, apart)
        refused = [ended for ended in pair if ended.status == 2 and ended.line]
        done = [ended for ended in pair if ended.status == 0]
        faults = [] if len(done) == len(refused) == 1 else [f"they ended with {pair[0].told} and {pair[1].told}"]
        faults += differences(contents(trial.place), trial.left)
        row.add(f"{apart:.3f} s apart{', resumed' if number % 2 else ''}", faults)
    return row


def no_folder(trial: Trial, tries: int, seed: int) -> Row:
    """Start a command twice at once without --out."""
    row = Row(
        f"two processes without --out, {trial.name}", "both end well, in folders of their own, with the same bytes"
    )
    free = trial.words[: trial.words.index("--out")]
    draw = random.Random(f"{trial.name} {seed}")
    name = "tiny" if trial.words[0] == "run" else "compare-tiny"
    for _ in range(tries):
        trial.begin()
        apart = draw.choice((0.0, draw.uniform(0, 0.3) * trial.seconds))
        pair = _pair(trial, free, free, apart)
        faults = [f"one ended with {ended.told}" for ended in pair if ended.status != 0]
        row.add(f"{apart:.3f} s apart", faults or _both(trial, f"runs/{name}", f"runs/{name}-2"))
    return row


def one_cache(trial: Trial, tries: int, seed: int) -> Row:
    """Start a command twice at once into two folders, with the same teacher to train and to store in one cache."""
    row = Row(
        f"two processes over one cache, {trial.name}",
        "both end well, with the same bytes in both folders and the cache",
    )
    draw = random.Random(f"{trial.name} {seed}")
    free = trial.words[: trial.words.index("--out")]
    for _ in range(tries):
        trial.begin()
        apart = draw.choice((0.0, draw.uniform(0, 0.1) * trial.seconds))
        pair = _pair(trial, (*free, "--out", "a"), (*free, "--out", "b"), apart)
        faults = [f"one ended with {ended.told}" for ended in pair if ended.status != 0]
        row.add(f"{apart:.3f} s apart", faults or _both(trial, "a", "b"))
    return row


def _both(trial: Trial, first: str, second: str) -> list[str]:
    """Whether both folders hold what one command leaves in its own, and the cache what it leaves there."""
    faults = []
    whole = contents(trial.place)
    for name, other in ((first, second), (second, first)):
        found = {key: value for key, value in whole.items() if not key.startswith(f"work/{other}/")}
        found = {key.replace(f"work/{name}/", "work/out/"): value for key, value in found.items()}
        faults += [f"{name}: {fault}" for fault in differences(_shared(found), _shared(trial.left))]
    return faults


def _shared(files: dict[str, str]) -> dict[str, str]:
    """The students and the cache, and what is left over: who of two has trained the teacher may differ."""
    whole = ("student.safetensors", "student.json", "baseline.safetensors", "baseline.json", ".part")
    return {name: digest for name, digest in files.items() if name.startswith("cache/") or name.endswith(whole)}


def _pair(trial: Trial, first: tuple[str, ...], second: tuple[str, ...], apart: float) -> tuple[Ended, Ended]:
    one = start(trial.place, first, name="first")
    time.sleep(apart)
    other = start(trial.place, second, name="second")
    return one.wait(), other.wait()
