"""Processes that are forked from this one, where torch is imported already: a fresh one takes seconds for that."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from typing import Any

import pytest

ALL_TOGETHER = 300.0
"""Seconds that processes which work together may take."""
needed = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def begun(work: Callable[..., None], *given: Any) -> ForkProcess:
    """A process that does this work; what it raises is printed there, and its exit status is 1."""
    process = multiprocessing.get_context("fork").Process(target=_apart, args=(work, given))
    with warnings.catch_warnings():  # newer Pythons warn wherever threads run, as those of pytest-xdist do
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _apart(work: Callable[..., None], given: tuple[Any, ...]) -> None:
    """Work as a fresh Python does it: it writes to the descriptors 1 and 2 by itself, and warnings are no errors."""
    warnings.simplefilter("default")
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    work(*given)


def by_two(work: Callable[..., None], *given: Any) -> None:
    """Let two processes do this work together, in the environment that torchrun gives to its processes.

    Raises:
        AssertionError: One of them failed, or they did not come to an end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [begun(_as_of_torchrun, rank, port, work, given) for rank in (0, 1)]
    end = time.monotonic() + ALL_TOGETHER
    while any(one.exitcode is None for one in processes) and not any(one.exitcode for one in processes):
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    for one in processes:
        one.kill()  # who still waits for the one that failed
        one.join()
    assert [one.exitcode for one in processes] == [0, 0]


def _as_of_torchrun(rank: int, port: str, work: Callable[..., None], given: tuple[Any, ...]) -> None:
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "forked"}
    work(*given)
