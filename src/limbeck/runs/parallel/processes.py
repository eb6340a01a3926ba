"""Work that consists of many like tasks, done by several processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from limbeck.errors import RequestError, RunError
from limbeck.notices import once, tell

Task = TypeVar("Task")
Result = TypeVar("Result")
RETRIES = 3
"""How often work that goes on by itself is begun anew where a process was lost."""


class Pool(Protocol):
    """Processes that carry out tasks side by side."""

    @property
    def threads(self) -> int:
        """Of each on the CPU."""
        ...

    def places(self) -> int:
        """How many tasks are done side by side."""
        ...

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """The results in the tasks' order, each as soon as it and those before it are there.

        Args:
            work: A function of a module, so that other processes can import it.
            tasks: What can be pickled.

        Raises:
            RequestError, RunError: What the work raised first; the other tasks are given up.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine, each a fresh Python (spawn) with its own import of torch.

    A task's floating-point results depend on its threads, not on how many processes there are: with the same `threads`
    they are those of `torch.set_num_threads(threads)` in one process.

    Args:
        jobs: How many.
        threads: Of each on the CPU.
        retries: How often what was not finished is begun anew where a process was killed.
    """

    jobs: int
    threads: int
    retries: int = 0

    def places(self) -> int:
        """As `Pool` says."""
        return self.jobs

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """As `Pool` says.

        Raises:
            RunError: Also where a process was killed.
        """
        yield from in_order(self._finished(work, dict(enumerate(tasks))))

    def _finished(self, work: Callable[[Task], Result], left: dict[int, Task]) -> Iterator[tuple[int, Result]]:
        """Results as they come, each with its task's place; what a killed process leaves is begun anew by others."""
        for attempt in range(self.retries + 1):
            try:
                for place, result in self._attempt(work, dict(left)) if left else ():
                    del left[place]
                    yield place, result
                return
            except BrokenProcessPool:
                if attempt < self.retries:
                    tell("one of the processes was killed: what it was at is done again")
        raise RunError(
            "one of the processes was killed, or had not enough memory; --resume does what is missing, with fewer "
            "--jobs if memory was short"
        )

    def _attempt(self, work: Callable[[Task], Result], tasks: Mapping[int, Task]) -> Iterator[tuple[int, Result]]:
        context = multiprocessing.get_context("spawn")
        numbers = context.SimpleQueue()
        for one in range(self.jobs):
            numbers.put(one)
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            min(self.jobs, len(tasks)), mp_context=context, initializer=_begin, initargs=(numbers, self.threads)
        )
        try:
            futures = {pool.submit(work, task): place for place, task in tasks.items()}
            for done in as_completed(futures):
                yield futures[done], done.result()
        except BrokenProcessPool:
            raise
        except BaseException:
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def threads_each(jobs: int, threads: int | None) -> int:
    """Threads of each of so many processes: as many as were asked for, else this process's shared out."""
    return threads or max(1, torch.get_num_threads() // jobs)


def check_jobs(jobs: int, devices: int | str, num_nodes: int) -> None:
    """Raise RequestError for students on several devices each, several of which are to be trained side by side."""
    if jobs > 1 and (devices not in (1, "1") or num_nodes > 1 or "TORCHELASTIC_RUN_ID" in os.environ):
        raise RequestError(
            f"--jobs {jobs} trains students side by side, each on one device; leave --devices, --num-nodes and "
            "torchrun out, or --jobs"
        )


def number() -> int:
    """Which of the processes this is, from 0; 0 where there are no several."""
    return _NUMBER


def in_order(finished: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Results, each with its place from 0, in the order of their places; what `finished` raises is raised at once."""
    done: dict[int, Result] = {}
    following = 0
    for place, result in finished:
        done[place] = result
        while following in done:
            yield done.pop(following)
            following += 1


_NUMBER = 0
_OPEN = ExitStack()
"""What holds until this process ends."""


def _begin(numbers: Any, threads: int) -> None:
    """Prepare a fresh process: its threads and number; Ctrl-C is the first process's, and it ends with that one."""
    global _NUMBER
    _NUMBER = numbers.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _OPEN.enter_context(once())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
