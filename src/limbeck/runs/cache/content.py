"""What limbeck's cache holds, teachers and their outputs, and taking away what is not needed any more."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import limbeck
from limbeck.errors import RequestError, RunError
from limbeck.folders import cache_root
from limbeck.runs.cache.in_use import gate, is_used
from limbeck.runs.folder import CLAIM
from limbeck.runs.teachers import KEYS
from limbeck.teachers.coding import Coding
from limbeck.teachers.shards import DESCRIPTION, Shards

TEACHER, OUTPUTS, LEFTOVER = "teacher", "teacher outputs", "leftover"
_TRAINING, _PRUNED = ".training", ".pruned-"


@dataclass(frozen=True)
class Entry:
    """Something that can be taken away as a whole.

    Attributes:
        path: Its folder, or a file that a killed process left.
        kind: "teacher", "teacher outputs" or "leftover".
        words: What it was made of.
        bytes: Its size.
        made: When, in seconds since 1970.
        used: When a run used it last.
        unreachable: Why no run of this limbeck will find it; empty for what can be used.
        folder: The entry that it belongs to.
        in_use: Whether a running process has claimed it.
    """

    path: Path
    kind: str
    words: str
    bytes: int
    made: float
    used: float
    unreachable: str
    folder: Path
    in_use: bool = False


@dataclass(frozen=True)
class Pruned:
    """What went, what would have gone if no process used it, and how much stays."""

    gone: Sequence[Entry]
    in_use: Sequence[Entry]
    left_bytes: int


def content(root: Path | None = None) -> list[Entry]:
    """The cache's entries, those that were used last first; what is not limbeck's is left out."""
    root = root or cache_root()
    found = [entry for folder in _folders(root / "teachers") for entry in _teacher(folder)]
    found += [entry for folder in _folders(root / "teacher_outputs") for entry in _outputs(folder)]
    claimed: set[Path] = set()
    with suppress(OSError):  # where nothing can be written nothing is claimed
        if found:
            with gate(root):
                claimed = {entry.folder for entry in found if _is_busy(entry.folder, root)}
    noted = [_claimed(entry) if entry.folder in claimed else entry for entry in found]
    return sorted(noted, key=lambda entry: entry.used, reverse=True)


def prune(
    *,
    older_than: float | None = None,
    keep_bytes: int | None = None,
    unreachable: bool = False,
    dry_run: bool = False,
    root: Path | None = None,
) -> Pruned:
    """Take entries away: all that one of the rules names, and that no running process uses.

    Args:
        older_than: Those that were not used for so many seconds.
        keep_bytes: The least recently used ones, until the others are no larger.
        unreachable: What killed processes left, and what this version of limbeck does not find any more.
        dry_run: Only say what would go.
        root: The cache; limbeck's by default.

    Raises:
        RequestError: No rule is given.
        RunError: Something cannot be deleted.
    """
    if older_than is None and keep_bytes is None and not unreachable:
        raise RequestError("say what may go: --older-than 30d, --keep-bytes 10GB or --unreachable")
    root = root or cache_root()
    entries = content(root)
    now = time.time()
    named = [
        entry
        for entry in entries
        if (unreachable and entry.unreachable) or (older_than is not None and now - entry.used > older_than)
    ]
    whole = {entry.path for entry in named}
    named = [entry for entry in named if entry.path == entry.folder or entry.folder not in whole]
    gone, in_use = _take_away(named, root, dry_run)
    left = sum(entry.bytes for entry in entries) - sum(entry.bytes for entry in gone)
    if keep_bytes is not None:
        rest = [one for one in entries if one not in named and one.path == one.folder and one.folder not in whole]
        for entry in sorted(rest, key=lambda one: one.used):
            if left <= keep_bytes:
                break
            also, kept = _take_away([entry], root, dry_run)
            gone, in_use, left = [*gone, *also], [*in_use, *kept], left - sum(one.bytes for one in also)
    return Pruned(gone, in_use, left)


def _take_away(entries: Sequence[Entry], root: Path, dry_run: bool) -> tuple[list[Entry], list[Entry]]:
    gone: list[Entry] = []
    in_use: list[Entry] = []
    for entry in entries:
        try:
            with gate(root):
                busy = _is_busy(entry.folder, root)
                moved = None if busy or dry_run else _moved(entry.path)
            if moved is not None:
                shutil.rmtree(moved)
        except FileNotFoundError:  # with its folder, or by another process
            continue
        except OSError as error:
            raise RunError(f"cannot delete {entry.path}: {error.strerror or error}") from error
        (in_use if busy else gone).append(entry)
    return gone, in_use


def _moved(path: Path) -> Path | None:
    """Take a file away; move a folder to where nobody will begin to use it, so that it can be deleted without haste."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return None
    return path.rename(path.with_name(f"{_PRUNED}{secrets.token_hex(8)}"))


def _is_busy(folder: Path, root: Path) -> bool:
    """Whether a process uses an entry, or a training is at work in it."""
    if is_used(folder, root):
        return True
    if not (folder / CLAIM).exists():
        return False
    try:
        with FileLock(folder / CLAIM).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _claimed(entry: Entry) -> Entry:
    """The same, in use: what it lacks may just be on its way."""
    return replace(entry, in_use=True, unreachable="")


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _teacher(folder: Path) -> Iterator[Entry]:
    if folder.name.startswith(_PRUNED):
        yield _leftover(folder, folder)
        return
    yield from (_leftover(path, folder) for path in folder.glob(".teacher.*.part"))
    if folder.name.endswith(_TRAINING):
        if (folder / CLAIM).exists() or (folder / "checkpoints").is_dir():
            yield _entry(folder, TEACHER, folder.name.removesuffix(_TRAINING), "half trained")
        return
    weights, described = folder / "teacher.safetensors", folder / "teacher.json"
    if not described.exists():
        if weights.exists():
            yield _entry(folder, TEACHER, folder.name, "half written")
        return
    fields = _json(described)
    reason = "" if weights.exists() else "half written"
    if fields.get("limbeck") != limbeck.__version__ or fields.get("keys") != KEYS:
        reason = f"of limbeck {fields.get('limbeck', 'unknown')}, whose teachers have other names"
    training = _mapping(fields.get("training"))
    options = "".join(f", {key} {value}" for key, value in _mapping(fields.get("options")).items())
    epochs = training.get("epochs")
    length = f"{epochs} epoch{'' if epochs == 1 else 's'}"
    words = f"{fields.get('model', folder.name)}{options}; {length} on {training.get('data')}"
    yield _entry(folder, TEACHER, f"{words}, seed {training.get('seed')}", reason)


def _outputs(folder: Path) -> Iterator[Entry]:
    if folder.name.startswith(_PRUNED):
        yield _leftover(folder, folder)
        return
    written = (folder / DESCRIPTION).exists()
    if not written and not any(folder.glob("view-*/shard-*.safetensors*")):
        return
    yield from (_leftover(path, folder) for path in (*folder.glob("*.part"), *folder.glob("view-*/*.part")))
    shards = Shards(folder)
    try:
        found = shards.description()
    except RequestError:
        yield _entry(folder, OUTPUTS, folder.name, "damaged, or of another limbeck")
        return
    if found is None:
        yield _entry(folder, OUTPUTS, folder.name, "half written")
        return
    there = sum(shards.has(*shard) for shard in found.shards)
    reason = "" if there == len(found.shards) else f"half written: {there} of {len(found.shards)} shards"
    if found.made_of.get("limbeck") != limbeck.__version__:
        reason = f"of limbeck {found.made_of.get('limbeck')}"
    tensors, coding = ", ".join(sorted(found.tensors)), Coding.of(found.about)
    form = f"{tensors}; {found.samples:,} samples × {found.views}; {coding.words}"
    made_of = " on ".join(found.words[name] for name in ("teacher", "data") if name in found.words)
    asked = f"; {found.words['asked']}" if "asked" in found.words else ""
    yield _entry(folder, OUTPUTS, f"{made_of}: {form}{asked}", reason)


def _entry(folder: Path, kind: str, words: str, unreachable: str) -> Entry:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".part")]
    times = [path.stat().st_mtime for path in files] or [folder.stat().st_mtime]
    size = sum(path.stat().st_size for path in files)
    return Entry(folder, kind, words, size, min(times), max(times), unreachable, folder)


def _leftover(path: Path, folder: Path) -> Entry:
    files = [one for one in (path, *path.rglob("*")) if one.is_file()]
    changed = path.stat().st_mtime
    size = sum(one.stat().st_size for one in files)
    return Entry(path, LEFTOVER, path.name, size, changed, changed, "left by a process that was killed", folder)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return _mapping(content)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
