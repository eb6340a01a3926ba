"""Teacher outputs in memory that several processes need: the first computes them, the others read what it has."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file

from limbeck.notices import tell
from limbeck.teachers import CachedTeacher

FOLDER = "shared_outputs"
"""In a run's folder, while its processes are at work."""
_SECONDS, _FINGERPRINT = "seconds", "fingerprint"


@contextmanager
def sharing(run: Path, several: bool) -> Iterator[Path | None]:
    """Inside, the folder in which a run's processes share teacher outputs; None where there are not several."""
    if not several:
        yield None
        return
    folder = run.absolute() / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def computed_once(folder: Path, name: str, compute: Callable[[], CachedTeacher]) -> tuple[CachedTeacher, float]:
    """Teacher outputs, and the seconds of computing them, here or in the process that was first.

    Args:
        folder: What `sharing` gives.
        name: The same for outputs with the same bits.
        compute: Asks the teacher; where nothing can be written, each process does.
    """
    path = folder / f"{name}.safetensors"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock"))  # of a process that dies the system gives it free
            if path.exists():
                return _read(path)
        except (OSError, NotImplementedError) as error:  # the latter of file systems without locks
            _tell_each(error)
            return timed(compute)
        teacher, seconds = timed(compute)
        try:
            _write(path, teacher, seconds)
        except OSError as error:
            _tell_each(error)
        return teacher, seconds


def timed(compute: Callable[[], CachedTeacher]) -> tuple[CachedTeacher, float]:
    """Teacher outputs, and the seconds of computing them."""
    began = time.perf_counter()
    teacher = compute()
    return teacher, time.perf_counter() - began


def _read(path: Path) -> tuple[CachedTeacher, float]:
    """The file's tensors lie in memory once for all processes of a machine that read it."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return CachedTeacher.of_tensors(about[_FINGERPRINT], tensors), float(about[_SECONDS])


def _write(path: Path, teacher: CachedTeacher, seconds: float) -> None:
    part = path.with_suffix(".part")
    about = {_FINGERPRINT: teacher.fingerprint, _SECONDS: repr(seconds)}
    try:
        save_file(teacher.tensors(), part, about)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tell_each(error: Exception) -> None:
    tell(f"teacher outputs cannot be shared between the processes ({error}): each computes its own")
