"""--jobs and --on: students that are trained side by side. Heavy imports happen inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from limbeck.runs.parallel.processes import Pool

Jobs = Annotated[int, typer.Option(help="Train so many students side by side, each with --threads.", min=1)]
On = Annotated[
    str | None, typer.Option(help="ray: train students by Ray's processes here; ray://HOST:PORT: on a cluster.")
]


def pool_of(
    jobs: int,
    on: str | None,
    threads: int | None,
    accelerator: str,
    devices: int | str = 1,
    nodes: int = 1,
    again: bool = False,
) -> Pool | None:
    """The processes that were asked for; None where this one does it all.

    Args:
        jobs: How many.
        on: Where they are.
        threads: Of each.
        accelerator: What each computes on.
        devices: Of each student.
        nodes: Likewise.
        again: Whether processes of this machine begin anew what one that was killed has left.
    """
    if jobs == 1 and on is None:
        return None
    from limbeck.engine.devices.fabric import kind_of
    from limbeck.runs.parallel.cluster import Cluster, address_of, imported
    from limbeck.runs.parallel.processes import RETRIES, Processes, check_jobs, threads_each

    check_jobs(max(jobs, 2), devices, nodes)
    if on is None:
        return Processes(jobs, threads_each(jobs, threads), RETRIES if again else 0)
    address = address_of(on)
    imported()
    gpus = 1 if kind_of(accelerator) == "cuda" else 0
    return Cluster(address, threads_each(jobs, threads) if jobs > 1 else threads or 1, jobs if jobs > 1 else None, gpus)
