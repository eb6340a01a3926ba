"""Which entries of limbeck's cache running processes use: a lock each, which a killed process leaves open."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from limbeck.folders import cache_root

DESCRIPTIONS = ("teacher.json", "teacher_outputs.json")
"""What an entry is described by; its time of change is that of the entry's last use."""
PATIENCE = 60.0
"""Seconds to wait for another process that claims something or looks at claims."""
_CLAIMS, _GATE = "claims", ".gate"


class Use:
    """A claim on an entry, until it is released or its process ends."""

    def __init__(self, lock: FileLock | None = None) -> None:
        self._lock = lock

    def release(self) -> None:
        """Give the entry free."""
        if self._lock is not None:
            with suppress(OSError):
                self._lock.release()
                Path(self._lock.lock_file).unlink(missing_ok=True)


def use(entry: str | Path) -> Use:
    """Claim an entry of the cache, and note that it is used now; what lies elsewhere needs no claim.

    Where nothing can be written, nothing can be pruned either: then there is no claim.
    """
    root = cache_root()
    if "://" in str(entry) or not Path(entry).absolute().is_relative_to(root.absolute()):
        return Use()
    try:
        with gate(root):
            is_used(Path(entry), root)  # which clears away the claims of killed processes
            lock = FileLock(root / _CLAIMS / f"{_name(Path(entry))}+{secrets.token_hex(8)}.lock", thread_local=False)
            lock.acquire(timeout=0)
    except OSError:
        return Use()
    for name in DESCRIPTIONS:
        with suppress(OSError):
            os.utime(Path(entry) / name)
    return Use(lock)


@contextmanager
def using(entry: str | Path) -> Iterator[None]:
    """Claim an entry while the block runs."""
    claim = use(entry)
    try:
        yield
    finally:
        claim.release()


@contextmanager
def gate(root: Path) -> Iterator[None]:
    """Keep other processes from claiming anything, or from taking anything away: what is found inside stays so."""
    (root / _CLAIMS).mkdir(parents=True, exist_ok=True)
    with FileLock(root / _CLAIMS / _GATE).acquire(timeout=PATIENCE):
        yield


def is_used(entry: Path, root: Path) -> bool:
    """Whether a running process has claimed an entry; claims of ended processes are cleared away."""
    return any(_is_held(path) for path in (root / _CLAIMS).glob("*.lock") if path.name.startswith(f"{_name(entry)}+"))


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            path.unlink(missing_ok=True)
    except Timeout:
        return True
    except OSError:  # another user's: better kept than taken away
        return path.exists()
    return False


def _name(entry: Path) -> str:
    return f"{entry.parent.name}+{entry.name}"
