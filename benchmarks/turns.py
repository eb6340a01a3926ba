"""Contenders measured in turns in one process, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from limbeck.engine.devices.allocator import KEPT, LARGEST, set_thresholds
from limbeck.notices import muted

ADJUSTED = 2**25
"""Bytes up to which glibc by itself comes to keep freed pieces, and twice as much of the heap's end."""


def timed(work: Callable[[], Any]) -> float:
    """The seconds that a piece of work takes, on the GPU too where it uses one."""
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def _finish() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


@contextmanager
def untuned() -> Iterator[None]:
    """Inside, memory is had as in a process without limbeck: as glibc's allocator adjusts itself to large tensors."""
    set_thresholds(trim=2 * ADJUSTED, mmap=ADJUSTED)
    try:
        yield
    finally:
        set_thresholds(trim=KEPT, mmap=LARGEST)


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Each contender's seconds, round by round, and how many times as fast as the first it is (median of rounds)."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        first = turn % len(names)  # so that nobody always comes after the same one
        for name in names[first:] + names[:first]:
            with muted():  # the teachers are not trained
                seconds[name].append(contenders[name]())
    return compared(seconds)


def compared(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The seconds with their ratios to the first contender's."""
    first = next(iter(seconds.values()))
    ratios = {
        name: statistics.median(a / b for a, b in zip(first, values, strict=True)) for name, values in seconds.items()
    }
    return {"seconds": seconds, "times_as_fast": ratios}


def show(figures: Mapping[str, Any], unit: str) -> None:
    """Print a table of what was measured."""
    for name, values in figures["seconds"].items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        ratio = figures["times_as_fast"][name]
        print(f"{name:28} {statistics.median(values):8.2f} s {unit} ({spread})   {ratio:.2f} times as fast")
