"""The run folder: where it is, what it holds, and whether a run may go on in it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout

import limbeck
from limbeck.atomic import is_part, sweep
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.fabric import from_first
from limbeck.engine.saving.files import write_json, write_text
from limbeck.errors import RequestError, RunError, as_request, shown
from limbeck.folders import nearest

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RECIPE = "recipe.yaml"
RESULT = "result.json"
COMPARISON = "compare.json"
TUNED = "tune.json"
CLAIM = ".claim"


def choose(out: Path | None, name: str, resume: bool) -> Path:
    """The folder of a run or comparison: the given one, or the first free of runs/NAME, runs/NAME-2, …

    With `resume` and no folder given, the newest unfinished one of that name is gone on with.

    Raises:
        RequestError: The given folder holds something already, and this is no resumption; nothing is left to resume.
    """
    name = name.replace(":", "-")
    if out is not None:
        with as_request(lambda reason: f"--out {shown(str(out))}: {reason}; choose another folder"):
            _check_given(out, resume)
        return out
    taken = list(takewhile(Path.exists, _places(name)))
    free = next(islice(_places(name), len(taken), None))
    if resume:
        unfinished = [path for path in taken if not (path / RESULT).exists() and not (path / COMPARISON).exists()]
        if taken and not unfinished:
            raise RequestError(f"every run in runs/{name} is finished; leave --resume out for a new one")
        return unfinished[-1] if unfinished else free
    return free


def _places(name: str) -> Iterator[Path]:
    """runs/NAME, runs/NAME-2, …"""
    return (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in count(1))


def _check_given(out: Path, resume: bool) -> None:
    there = nearest(out)
    if not there.is_dir():
        raise RequestError(f"{there} is a file; choose another --out")
    if not os.access(there, os.W_OK):
        raise RequestError(f"{there} cannot be written; choose another --out")
    filled = out.exists() and any(path.name != CLAIM and not is_part(path) for path in out.iterdir())
    if filled and not resume:
        raise RequestError(f"{out} is not empty; choose another --out, or --resume the run in it")
    if filled and not (out / RECIPE).exists():
        raise RequestError(f"{out} holds no run to resume; choose another --out")


@contextmanager
def opened(
    out: Path | None,
    name: str,
    described: str,
    resume: bool,
    fabric: Fabric,
    fits: Callable[[Path], None] = lambda folder: None,
) -> Iterator[Path]:
    """The folder, `choose`n by one process for all, described, and closed to other runs meanwhile.

    Where none is given, a run that begins at the same moment gets another one.

    Args:
        out: The given folder.
        name: Names the folder where none is given.
        described: The recipe's text.
        resume: Whether what the folder holds is gone on with.
        fabric: Whose first process reads and writes.
        fits: Raises RequestError, before anything is written, where what the folder holds does not fit.

    Raises:
        RequestError: The folder holds a run of something else, or another run is at work in it.
        RunError: It cannot be written.
    """
    folder = from_first(fabric, lambda: _reserved(out, name, resume))
    with claimed(folder, fabric):
        from_first(fabric, lambda: _describe(folder, described, resume, fits))
        yield folder


def _reserved(out: Path | None, name: str, resume: bool) -> Path:
    """The folder, made here if nobody gave it: of several processes that choose the same, one can make it."""
    while True:
        folder = choose(out, name, resume)
        if out is not None or (resume and folder.exists()):
            return folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.parent.is_dir():
                raise RequestError(f"{folder.parent} is a file; choose another --out") from None
        except OSError as error:
            raise RunError(f"cannot write {folder}: {error.strerror}") from error
        else:
            return folder


@contextmanager
def claimed(folder: Path, fabric: Fabric) -> Iterator[None]:
    """Keep other runs out of a folder, and sweep what a killed one left half-written; its claim died with it.

    Raises:
        RequestError: Another run is at work in it.
        RunError: It cannot be written.
    """
    if not fabric.is_global_zero:
        yield
        return
    path = folder / CLAIM
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = FileLock(path).acquire(timeout=0)
    except Timeout:
        raise RequestError(f"another run is at work in {folder}; wait for it, or choose another folder") from None
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    with claim:
        sweep(folder)
        yield


def _describe(out: Path, described: str, resume: bool, fits: Callable[[Path], None]) -> None:
    """Write what describes the run; on resumption check that it is the same one."""
    if resume and not (out / RECIPE).exists():
        tell(f"there is nothing to resume in {out}: starting from scratch")
    fits(out)
    write_text(out / RECIPE, described)
    write_json(out / "environment.json", environment())


def student_folder(method: str, seed: int) -> str:
    """What the folder of a comparison's student is called; ":NAME" is a variant that has a method's name."""
    name = f"variant-{method[1:]}" if method.startswith(":") else method.replace(":", "-")
    return f"{name}-seed{seed}"


def environment() -> dict[str, Any]:
    """What the numbers of a run depend on besides its recipe."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "limbeck": limbeck.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def read_result(run: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        RequestError: There is none.
    """
    try:
        return dict(json.loads((run / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if (run / TUNED).exists():
            raise RequestError(
                f"{run} holds a search: its table is its page (limbeck report {run}), its figures are in {run / TUNED}"
            ) from error
        raise RequestError(f"{run} holds no finished run: cannot read {run / RESULT}") from error


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
