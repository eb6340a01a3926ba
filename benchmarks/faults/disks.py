"""A disk that is full, and one that cannot be written: small file systems in memory, mounted for this."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.contents import contents, differences
from benchmarks.faults.forked import Ended, go, start
from benchmarks.faults.rows import Row
from benchmarks.faults.trials import Trial

MEGABYTES = 16
FILLER = "filler"


def full_disk(trial: Trial, tries: int, seed: int) -> Row:
    """Let the disk be full at a random point of a command, half of the time of one that was killed before."""
    row = Row(
        f"full disk, {trial.name}",
        "exit 1 (2 before storing) and one line; what was there stays; with space, the same bytes",
    )
    if skipped := _cannot_mount(trial.place.root):
        row.note = skipped
        return row
    draw = random.Random(f"{trial.name} {seed}")
    while row.tried < tries:
        with mounted(trial.place.root, MEGABYTES):
            trial.begin()
            begun = draw.random() < 0.5
            if begun:
                process = start(trial.place, trial.words)
                time.sleep(draw.uniform(0, trial.seconds))
                if process.end(signal.SIGKILL).status == 0:
                    continue
            size = sum(path.stat().st_size for root in _roots(trial) for path in root.rglob("*") if path.is_file())
            room = draw.randrange(0, max(1, _needs(trial) - size))
            before = set(contents(trial.place))
            _fill(trial.place.root, room)
            ended = go(trial.place, trial.resumed if begun else trial.words)
            if ended.status == 0:  # it was enough
                continue
            faults = _refused(ended, (1, 2), "No space left on device", "are free")
            passing = (".part", ".lock", "/")  # of killed processes; empty folders
            gone = {name for name in before - set(contents(trial.place)) if not name.endswith(passing)}
            faults += [f"{name} is gone" for name in sorted(gone)]
            (trial.place.root / FILLER).unlink()
            row.add(f"{room:,} bytes free{', resumed' if begun else ''}", faults + trial.finish())
    return row


def read_only(trial: Trial, seed: int) -> Row:
    """Let each folder that a command writes be on a file system that is mounted read-only."""
    row = Row(f"read-only folder, {trial.name}", "exit 1 or 2 and one line before anything is trained; nothing changed")
    if skipped := _cannot_mount(trial.place.root):
        row.note = skipped
        return row
    draw = random.Random(f"{trial.name} {seed}")
    cases = {"the cache": trial.words}
    if "--out" in trial.words:
        free = trial.words[: trial.words.index("--out")]
        cases |= {
            "--out": (*free, "--out", "../locked"),
            "a new folder in --out": (*free, "--out", "../locked/new/run"),
            "the folder with runs/": free,
            "a killed run": trial.resumed,
            "the store of teacher outputs": (*trial.words, "--set", "teacher.store.where=../locked/store"),
        }
    else:
        cases["the store of teacher outputs"] = (*trial.words, "--where", "../locked/store")
    for name, words in cases.items():
        trial.begin()
        locked = trial.place.root / "locked"
        if name == "a killed run":
            process = start(trial.place, trial.words)
            time.sleep(draw.uniform(0.5, 0.9) * trial.seconds)
            process.end(signal.SIGKILL)
        closed = {
            "the cache": trial.place.cache,
            "a killed run": trial.place.work,
            "the folder with runs/": trial.place.work,
        }
        before = contents(trial.place)
        with closed_to_writing(closed.get(name, locked)):
            ended = go(trial.place, words)
        faults = _refused(ended, (1, 2), "cannot be written", "cannot write")
        faults += differences(contents(trial.place), before)
        row.add(name, faults)
    return row


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[None]:
    """Inside, the folder is an empty file system of that size."""
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def closed_to_writing(folder: Path) -> Iterator[None]:
    """Inside, the folder is there as it is, and nobody can write in it."""
    folder.mkdir(exist_ok=True)
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


def _cannot_mount(folder: Path) -> str:
    """Why nothing can be tried here; empty where it can."""
    try:
        with mounted(folder, 1):
            return ""
    except (OSError, subprocess.CalledProcessError):
        return "skipped: only root may mount file systems"


def _roots(trial: Trial) -> tuple[Path, Path]:
    return trial.place.work, trial.place.cache


def _needs(trial: Trial) -> int:
    """About what a command writes in all."""
    if trial.words not in _SIZES:
        trial.begin()
        go(trial.place, trial.words)
        pages = os.sysconf("SC_PAGE_SIZE")
        files = [path for root in _roots(trial) for path in root.rglob("*") if path.is_file()]
        _SIZES[trial.words] = sum(-(-path.stat().st_size // pages) * pages for path in files)
        trial.begin()
    return _SIZES[trial.words]


def _fill(folder: Path, room: int) -> None:
    """Leave so many bytes free."""
    state = os.statvfs(folder)
    with (folder / FILLER).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize - room))


def _refused(ended: Ended, statuses: tuple[int, ...], *words: str) -> list[str]:
    right = ended.status in statuses and ended.line and any(word in ended.line for word in words)
    return [] if right else [f"it ended with {ended.told}"]


_SIZES: dict[tuple[str, ...], int] = {}
