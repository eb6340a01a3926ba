"""`limbeck compare`: several methods and seeds at one budget. Heavy imports happen inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    root_of,
    use_threads,
)
from limbeck.cli.printing import document


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

    limited = limits(limit_steps, limit_samples).items()
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in limited if value is not None)]
    made = read(recipe, overrides, epochs)
    use_threads(threads)
    from limbeck.cli.compared import comparison as shown
    from limbeck.engine.devices import is_first
    from limbeck.runs.folder import choose

    folder = choose(out, f"compare-{made.name}", resume or redo)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    from limbeck.compare import compare as carry_out
    from limbeck.compare.cells import chosen_variants
    from limbeck.report import write_page
    from limbeck.runs.machine import Machine

    machine = Machine(
        accelerator, count(devices), strategy, not quiet, num_nodes=num_nodes, deterministic=deterministic
    )
    choices = chosen_variants(recipe, names, folder if resume or redo else None, overrides, epochs)
    folders: list[Path] = []
    with resumable(folders):
        comparison = carry_out(
            made,
            names,
            range(made.seed, made.seed + seeds),
            root=root_of(data_root, made, folder if resume or redo else None),
            out=out,
            resume=resume,
            redo=redo,
            effect=effect,
            variants=choices,
            machine=machine,
            began=folders.append,
        )
    if is_first():
        page = drawn(write_page, Path(comparison["out"]))
        document(comparison) if as_json else shown(comparison, page)
