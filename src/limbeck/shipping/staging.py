"""A folder that is there whole or not at all: made beside its place under another name, and renamed at the end."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from limbeck.atomic import ENDING, held
from limbeck.errors import RequestError, RunError
from limbeck.folders import nearest

BEFORE = ".before"
MARK = "ship.json"
"""A folder that holds it was made by `ship`, and may be made anew."""


def check_place(out: Path) -> None:
    """Raise RequestError, before anything is made, for a folder that cannot be written or holds something else."""
    there = nearest(out)
    if not there.is_dir():
        raise RequestError(f"{there} is a file; choose another --out")
    if out.is_mount():
        raise RequestError(f"{out} is a mount point, which cannot be replaced; choose a folder in it: {out / 'ship'}")
    if out.exists() and not (out / MARK).exists() and any(out.iterdir()):
        raise RequestError(f"{out} is not empty and holds no {MARK}; choose another --out")
    writes = there if there != out else out.absolute().parent
    if not os.access(writes, os.W_OK | os.X_OK) or not os.access(there, os.W_OK | os.X_OK):
        raise RequestError(f"{writes} cannot be written; choose another --out")


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to write in, which takes the place of `out` where nothing fails inside; else nothing is left of it.

    Raises:
        RunError: It cannot be written, or what is written inside cannot.
    """
    _sweep(out.absolute())
    temporary = out.absolute().with_name(f".{out.absolute().name}.{secrets.token_hex(4)}{ENDING}")
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot write {temporary.parent}: {error.strerror}; choose another --out") from error
        with ExitStack() as stack:
            with suppress(OSError):  # a file system without locks
                stack.enter_context(held(temporary))
            yield temporary
            _take_place(temporary, out)
    except RunError as error:
        raise RunError(str(error).replace(str(temporary), str(out))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove what killed processes have left beside a folder, and bring back what one has taken from its place."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.*{ENDING}*"):
        with suppress(OSError), held(path):
            if path.name.endswith(BEFORE) and not out.exists():
                path.rename(out)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _take_place(temporary: Path, out: Path) -> None:
    before = temporary.with_name(f"{temporary.name}{BEFORE}")
    try:
        if out.exists():
            out.rename(before)
        temporary.rename(out)
    except OSError as error:
        if before.exists() and not out.exists():
            before.rename(out)
        raise RunError(f"cannot write {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(before, ignore_errors=True)
