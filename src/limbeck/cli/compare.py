"""`limbeck compare`: several methods and seeds at one budget. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli import complete
from limbeck.cli.interrupts import resumable
from limbeck.cli.options import (
    Accelerator,
    AsJson,
    DataRoot,
    Deterministic,
    Devices,
    LimitSamples,
    LimitSteps,
    NumNodes,
    Overrides,
    Quiet,
    RecipeArgument,
    Strategy,
    Threads,
    count,
    drawn,
    limits,
    names,
    overrides,
    root_of,
    use_threads,
)
from limbeck.cli.printing import document
from limbeck.errors import RequestError, unknown

if TYPE_CHECKING:
    from limbeck.runs.parallel import Pool


def compare(
    recipe: RecipeArgument,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated names; recipe: its own; backbone: a deepest exit alone.",
            autocompletion=complete.methods,
        ),
    ] = "recipe",
    seeds: Annotated[int, typer.Option(help="How many seeds, counted up from the recipe's.", min=1)] = 3,
    effect: Annotated[
        float | None,
        typer.Option(help="The difference of which is said how many seeds show it. Default: 0.01 of an accuracy."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="decided: add seeds where a verdict is open, up to --max-seeds.")
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(help="With --until decided: seeds in the end, at most.")] = None,
    teachers: Annotated[
        int, typer.Option(help="Train so many teachers of different seeds; seeds take turns among them.", min=1)
    ] = 1,
    jobs: Annotated[int, typer.Option(help="Train so many students side by side, each with --threads.", min=1)] = 1,
    on: Annotated[
        str | None, typer.Option(help="ray: train students by Ray's processes here; ray://HOST:PORT: on a cluster.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: the first free of runs/compare-RECIPE, …")] = None,
    data_root: DataRoot = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every student.")] = None,
    set_: Overrides = None,
    limit_steps: LimitSteps = None,
    limit_samples: LimitSamples = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume a comparison; all its students count, named or not.")
    ] = False,
    redo: Annotated[
        bool, typer.Option("--redo", help="Resume, and train again students of another recipe, code, teacher or data.")
    ] = False,
    accelerator: Accelerator = "auto",
    devices: Devices = "1",
    num_nodes: NumNodes = 1,
    strategy: Strategy = "auto",
    deterministic: Deterministic = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the student by several methods and seeds at one budget, and say what the differences show."""
    from limbeck.recipes.read import read

    changes = overrides(set_, limits(limit_steps, limit_samples))
    made = read(recipe, changes, epochs)
    use_threads(threads)
    from limbeck.cli.compared import comparison as shown
    from limbeck.engine.devices import is_first
    from limbeck.runs.folder import choose

    most = _max_seeds(until, max_seeds)
    pool = _pool(jobs, on, threads, accelerator, count(devices), num_nodes)
    folder = choose(out, f"compare-{made.name}", resume or redo)
    named = names(methods)
    from limbeck.compare import compare as carry_out
    from limbeck.compare.cells import chosen_variants
    from limbeck.report import write_page
    from limbeck.runs.machine import Machine

    machine = Machine(
        accelerator, count(devices), strategy, not quiet, num_nodes=num_nodes, deterministic=deterministic
    )
    choices = chosen_variants(recipe, named, folder if resume or redo else None, changes, epochs)
    folders: list[Path] = []
    with resumable(folders):
        comparison = carry_out(
            made,
            named,
            range(made.seed, made.seed + seeds),
            root=root_of(data_root, made, folder if resume or redo else None),
            out=out,
            resume=resume,
            redo=redo,
            max_seeds=most,
            teacher_count=teachers,
            effect=effect,
            variants=choices,
            machine=machine,
            pool=pool,
            began=folders.append,
        )
    if is_first():
        page = drawn(write_page, Path(comparison["out"]))
        document(comparison) if as_json else shown(comparison, page)


def _max_seeds(until: str | None, most: int | None) -> int | None:
    """--until and --max-seeds, which need each other."""
    if until not in (None, "decided"):
        raise unknown("--until", until, ["decided"])
    if (until is None) != (most is None):
        raise RequestError(
            "--until decided and --max-seeds N go together: so many seeds are trained in the end, at most"
        )
    return most


def _pool(
    jobs: int, on: str | None, threads: int | None, accelerator: str, devices: int | str, nodes: int
) -> Pool | None:
    """--jobs and --on."""
    if jobs == 1 and on is None:
        return None
    from limbeck.engine.devices import kind_of
    from limbeck.runs.cluster import Cluster, address_of, imported
    from limbeck.runs.parallel import Processes, check_jobs, threads_each

    check_jobs(max(jobs, 2), devices, nodes)
    if on is None:
        return Processes(jobs, threads_each(jobs, threads))
    address = address_of(on)
    imported()
    gpus = 1 if kind_of(accelerator) == "cuda" else 0
    return Cluster(address, threads_each(jobs, threads) if jobs > 1 else threads or 1, jobs if jobs > 1 else None, gpus)
