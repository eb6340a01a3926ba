"""Tasks for pools, in a module that a fresh process imports at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch

from limbeck.errors import RequestError
from limbeck.runs.parallel.processes import number


def work(task: str) -> tuple[str, int, int]:
    """What is asked for: to wait, to die, to fail, or to say the threads and number of this process."""
    if task == "wait":
        time.sleep(60)
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "fail":
        raise RequestError("no such thing")
    return task, torch.get_num_threads(), number()


def die_once(marker: Path) -> str:
    """Kill this process, but not the one that tries again."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"
