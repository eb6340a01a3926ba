"""Work that consists of many like tasks, done by Ray's processes: on this machine or on a cluster."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from limbeck.errors import RequestError, RunError, shown
from limbeck.runs.parallel.processes import RETRIES, in_order

Task = TypeVar("Task")
Result = TypeVar("Result")
SCHEME = "ray"
LINES = {"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}
"""How Ray passes on what its processes say, unless the environment says otherwise: all of it, without colours.

By itself it takes lines that differ in numbers for one, such as those of two trials, and drops or delays the second.
"""


@dataclass(frozen=True)
class Cluster:
    """Ray's processes; all see the same file system.

    Args:
        address: A cluster's, as `ray.init` takes it; None for the one of RAY_ADDRESS, or else Ray on this machine.
        threads: CPUs that a task takes, and its threads.
        jobs: Of Ray on this machine, how many tasks run side by side; None for as many as there are CPUs.
        gpus: GPUs that a task takes.
    """

    address: str | None
    threads: int
    jobs: int | None = None
    gpus: int = 0

    def map(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """As `limbeck.runs.parallel.processes.Pool` says; a task whose process or machine was lost is done
        again elsewhere.

        Raises:
            RequestError: Ray is not installed, or the cluster cannot be reached.
            RunError: Also where a task's process was lost too often.
        """
        if not tasks:
            return
        ray = imported()
        with self._connected(ray):
            remote = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=RETRIES)(_carry_out)
            begun = [remote.remote(pickle.dumps((work, task)), sys.path, self.threads) for task in tasks]
            yield from in_order(_finished(ray, begun))

    def places(self) -> int:
        """As `limbeck.runs.parallel.processes.Pool` says: `jobs`, or as many as the CPUs and GPUs of now hold.

        Raises:
            RequestError: Ray is not installed, or the cluster cannot be reached.
        """
        if self.jobs is not None:
            return self.jobs
        ray = imported()
        if self._local and not ray.is_initialized():
            return max(1, (os.cpu_count() or 1) // self.threads)
        with self._connected(ray):
            there = ray.cluster_resources()
        wanted = {"CPU": self.threads, "GPU": self.gpus}
        return max(1, min(int(there.get(kind, 0) // count) for kind, count in wanted.items() if count))

    @property
    def _local(self) -> bool:
        return self.address is None and "RAY_ADDRESS" not in os.environ

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Inside, Ray is reached; afterwards left again, unless somebody else had reached it before."""
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        try:
            yield
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        cpus = {"num_cpus": self.jobs * self.threads} if self._local and self.jobs else {}
        where = {} if self.address is None else {"address": self.address}
        try:
            ray.init(include_dashboard=False, logging_level="warning", **where, **cpus)
        except Exception as error:
            raise RequestError(f"cannot reach Ray at {self.address or 'this machine'}: {error}") from error


def address_of(on: str) -> str | None:
    """--on: "ray" for Ray on this machine or at RAY_ADDRESS, "ray://HOST:PORT" for a cluster's client server.

    Raises:
        RequestError: It is neither.
    """
    if on == SCHEME:
        return None
    if not on.startswith(f"{SCHEME}://") or on == f"{SCHEME}://":
        raise RequestError(f"--on is ray, or a cluster's address such as ray://head:10001, not {shown(on)}")
    return on


def imported() -> Any:
    """The module ray.

    Raises:
        RequestError: It is not installed.
    """
    for name, value in LINES.items():  # which Ray reads when it is imported
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise RequestError("--on ray needs the extra: pip install 'limbeck[ray]'") from None
    return ray


def _carry_out(pickled: bytes, path: Sequence[str], threads: int) -> Any:
    """In one of Ray's processes, which finds the user's own code where the first process does."""
    import torch

    sys.path.extend(folder for folder in path if folder not in sys.path)
    torch.set_num_threads(threads)
    work, task = pickle.loads(pickled)
    return work(task)


def _finished(ray: Any, references: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Results as they come, each with its task's place; the first failure at once, whichever task's it is."""
    waiting, places = list(references), {reference: place for place, reference in enumerate(references)}
    while waiting:
        (ready, *_), waiting = ray.wait(waiting)
        try:
            yield places[ready], ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            lines = str(error).splitlines()
            raise RunError(f"Ray lost a process {RETRIES + 1} times: {lines[0] if lines else error!r}") from error
