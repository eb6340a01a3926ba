"""Files that are whole or not there: written under a temporary name, then renamed; what a killed process left is swept.

A temporary file is locked while it is written, and the kernel takes the lock from a process that dies: so a sweep can
tell what nobody is writing any more, also in a folder that several runs share.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows nothing is locked, and nothing swept
    fcntl = None  # type: ignore[assignment]

ENDING = ".part"


def put(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically.

    Raises:
        OSError: It cannot be written, on a full disk for one; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while not _written(path, path.with_name(f".{path.name}.{secrets.token_hex(4)}{ENDING}"), content):
        pass


def is_part(path: Path) -> bool:
    """Whether a file is one of `put`'s temporary ones."""
    return path.name.startswith(".") and path.name.endswith(ENDING)


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder, and in those inside it, that no process is writing any more."""
    for path in filter(is_part, folder.rglob(f"*{ENDING}")):
        with suppress(OSError), held(path):
            path.unlink()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside, no other process holds a file or folder; the kernel takes the lock from one that dies.

    Raises:
        OSError: Another process holds it, or there are no such locks here.
    """
    if fcntl is None:
        raise OSError
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _written(path: Path, temporary: Path, content: bytes | memoryview) -> bool:
    """Write a file by way of a temporary one; False where a sweep removed that before it was locked."""
    try:
        with ExitStack() as held:
            with temporary.open("wb") as file:
                held.callback(_hold(file))
                if not temporary.exists():
                    return False
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _hold(file: BinaryIO) -> Callable[[], None]:
    """Lock a file, beyond its closing: until what is returned is called."""
    if fcntl is None:
        return lambda: None
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)  # a sweep that looks at it just now is soon done
    descriptor = os.dup(file.fileno())
    return lambda: os.close(descriptor)
