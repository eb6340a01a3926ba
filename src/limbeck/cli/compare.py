"""`limbeck compare`: several methods and seeds at one budget. Heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

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
from limbeck.cli.pools import Jobs, On, pool_of
from limbeck.cli.printing import document
from limbeck.errors import RequestError, unknown

Methods = Annotated[
    str,
    typer.Option(
        help="Comma-separated names; recipe: its own; backbone: a deepest exit alone.",
        autocompletion=complete.methods,
    ),
]
Seeds = Annotated[int, typer.Option(help="How many seeds, counted up from the recipe's.", min=1)]
Effect = Annotated[
    float | None,
    typer.Option(help="The difference of which is said how many seeds show it. Default: 0.01 of an accuracy."),
]
Budget = Annotated[
    str | None,
    typer.Option(help="time: train all once more for the baseline's time; or for so many seconds. Default: steps."),
]
Until = Annotated[str | None, typer.Option(help="decided: add seeds where a verdict is open, up to --max-seeds.")]
MaxSeeds = Annotated[int | None, typer.Option(help="With --until decided: seeds in the end, at most.")]
Teachers = Annotated[
    int, typer.Option(help="Train so many teachers of different seeds; seeds take turns among them.", min=1)
]
Out = Annotated[Path | None, typer.Option(help="Folder. Default: the first free of runs/compare-RECIPE, …")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every student.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume a comparison; all its students count, named or not.")]
Redo = Annotated[
    bool, typer.Option("--redo", help="Resume, and train again students of another recipe, code, teacher or data.")
]


def compare(
    recipe: RecipeArgument,
    methods: Methods = "recipe",
    seeds: Seeds = 3,
    effect: Effect = None,
    budget: Budget = None,
    until: Until = None,
    max_seeds: MaxSeeds = None,
    teachers: Teachers = 1,
    jobs: Jobs = 1,
    on: On = None,
    out: Out = None,
    data_root: DataRoot = None,
    epochs: Epochs = None,
    set_: Overrides = None,
    limit_steps: LimitSteps = None,
    limit_samples: LimitSamples = None,
    resume: Resume = False,
    redo: Redo = False,
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
    from limbeck.compare import compare as carry_out
    from limbeck.compare.cells import chosen_variants
    from limbeck.runs.machine import Machine

    pool = pool_of(jobs, on, threads, accelerator, count(devices), num_nodes)
    there = _resumed(out, made.name, resume or redo)
    named = names(methods)
    folders: list[Path] = []
    with resumable(folders):
        comparison = carry_out(
            made,
            named,
            range(made.seed, made.seed + seeds),
            root=root_of(data_root, made, there),
            out=out,
            resume=resume,
            redo=redo,
            max_seeds=_max_seeds(until, max_seeds),
            teacher_count=teachers,
            effect=effect,
            seconds=_seconds(budget),
            variants=chosen_variants(recipe, named, there, changes, epochs),
            machine=Machine(accelerator, count(devices), strategy, not quiet, (), num_nodes, deterministic),
            pool=pool,
            began=folders.append,
        )
    _tell(comparison, as_json)


def _tell(comparison: Mapping[str, Any], as_json: bool) -> None:
    """The table, or the document, and the page; of several processes the first one's."""
    from limbeck.cli.compared import comparison as shown
    from limbeck.engine.devices.fabric import is_first
    from limbeck.report import write_page

    if is_first():
        page = drawn(write_page, Path(comparison["out"]))
        document(comparison) if as_json else shown(comparison, page)


def _resumed(out: Path | None, recipe: str, resumes: bool) -> Path | None:
    """The folder of the comparison that is resumed; None of a new one."""
    from limbeck.runs.folder import choose

    folder = choose(out, f"compare-{recipe}", resumes)
    return folder if resumes else None


def _seconds(budget: str | None) -> float | str | None:
    """--budget: "time" for the baseline's, a number of seconds, or "steps" for none."""
    if budget in (None, "steps"):
        return None
    if budget == "time":
        return "baseline"
    try:
        return float(budget)
    except ValueError:
        raise RequestError(f"--budget is steps, time, or a number of seconds, not {budget}") from None


def _max_seeds(until: str | None, most: int | None) -> int | None:
    """--until and --max-seeds, which need each other."""
    if until not in (None, "decided"):
        raise unknown("--until", until, ["decided"])
    if (until is None) != (most is None):
        raise RequestError(
            "--until decided and --max-seeds N go together: so many seeds are trained in the end, at most"
        )
    return most
