"""`limbeck tune`: a search with equal budgets for the baseline and every method, and its table."""

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
    LimitSamples,
    LimitSteps,
    Overrides,
    Quiet,
    RecipeArgument,
    Threads,
    drawn,
    limits,
    names,
    overrides,
    root_of,
    use_threads,
)
from limbeck.cli.pools import Jobs, On, pool_of
from limbeck.cli.printing import document, drawn_at
from limbeck.errors import RequestError, counted, shown

Trials = Annotated[int, typer.Option(help="Trials of the baseline, and as many of each method.", min=1)]
Methods = Annotated[
    str, typer.Option(help="Comma-separated names, as compare takes them.", autocompletion=complete.methods)
]
Space = Annotated[
    Path | None, typer.Option(metavar="FILE", help="YAML: keys of the recipe to {low, high, log} or {choices}.")
]
Minutes = Annotated[float | None, typer.Option(help="End the search after so many minutes, shared equally by all.")]
FreshSeeds = Annotated[
    int, typer.Option(help="Seeds, not used in the search, on which the winners are trained and tested.", min=1)
]
AtMost = Annotated[str | None, typer.Option(metavar="ms=5,mb=2", help="Leave students out that are slower or larger.")]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Optuna storage, or a journal's path, that processes share.")
]
Out = Annotated[Path | None, typer.Option(help="Folder. Default: the first free of runs/tune-RECIPE, …")]
Resume = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Resume the search in this folder, or add trials to it.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every student.")]


def tune(
    recipe: RecipeArgument,
    trials: Trials,
    methods: Methods = "recipe",
    space: Space = None,
    minutes: Minutes = None,
    fresh_seeds: FreshSeeds = 5,
    at_most: AtMost = None,
    storage: Storage = None,
    out: Out = None,
    resume: Resume = None,
    data_root: DataRoot = None,
    epochs: Epochs = None,
    set_: Overrides = None,
    limit_steps: LimitSteps = None,
    limit_samples: LimitSamples = None,
    jobs: Jobs = 1,
    on: On = None,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search the settings of baseline and methods at equal budgets; test the winners on fresh seeds."""
    from limbeck.engine.devices.fabric import is_first
    from limbeck.recipes.read import read

    changes = overrides(set_, limits(limit_steps, limit_samples))
    made = read(recipe, changes, epochs)
    folder = _resumed(out, resume)
    use_threads(threads)
    pool = pool_of(jobs, on, threads, accelerator, again=True)
    named = names(methods)
    from limbeck.compare.cells import chosen_variants
    from limbeck.report.tune import write_tune_page
    from limbeck.runs.machine import Machine
    from limbeck.tuning.asked import Asked
    from limbeck.tuning.contenders import names_of
    from limbeck.tuning.files import space_in
    from limbeck.tuning.limits import limits_of
    from limbeck.tuning.tune import tune as carry_out

    varied = chosen_variants(recipe, named, None, changes, epochs)
    given = space_in(space, names_of(named, varied))
    asked = Asked(named, trials, minutes, fresh_seeds, given, storage, limits_of(at_most))
    folders: list[Path] = []
    with resumable(folders, "--resume"):
        found = carry_out(
            made,
            asked,
            root=root_of(data_root, made, resume),
            out=folder,
            resume=resume is not None,
            variants=varied,
            machine=Machine(accelerator, progress=not quiet),
            pool=pool,
            began=folders.append,
        )
    if is_first():
        page = drawn(write_tune_page, Path(found["out"]))
        document(found) if as_json else show(found, page)


def _resumed(out: Path | None, resume: Path | None) -> Path | None:
    """The folder that is given, if any.

    Raises:
        RequestError: Two different ones are, or there is no search to resume.
    """
    if resume is None:
        return out
    if out is not None and out != resume:
        raise RequestError(f"--resume {shown(str(resume))} names the folder already; leave --out out")
    if not (resume / "recipe.yaml").exists():
        raise RequestError(f"{resume} holds no search to resume; leave --resume out, and name a new folder by --out")
    return resume


def show(found: Mapping[str, Any], page: Path | None) -> None:
    """The table at the end of a search."""
    from limbeck.cli.printing import console as new_console
    from limbeck.cli.printing import table as new_table
    from limbeck.compare.labels import label_of
    from limbeck.report.tune import contenders_of, spread
    from limbeck.runs.entry import label, span

    entries = contenders_of(found)
    seeds = ", ".join(map(str, found["fresh_seeds"]))
    table = new_table(f"{found['title']} on {found['data']}, {counted(found['epochs'], 'epoch')}, fresh seeds {seeds}")
    monitor = label(found["monitor"])
    left = ("contender", "verdict")
    columns = ("contender", "trials", "seconds", f"best validation {monitor}", f"fresh test {monitor}")
    for column in (*columns, "− baseline", "simultaneous 95 %", "verdict", "optimism"):
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for name, row in entries.items():
        verdict = found["verdict"].get(name, {})
        cells = [label_of(name, row), str(row["trials"]), f"{row['seconds']:.0f}", f"{row['best']['validation']:.4f}"]
        cells.append(spread(row["fresh"]))
        there = "difference" in verdict
        cells += [f"{verdict['difference']:+.4f}" if there else "", span(verdict["simultaneous"]) if there else ""]
        table.add_row(*cells, verdict.get("verdict", ""), f"{found['optimism'][name]:+.4f}")
    console = new_console(120)
    console.print(table)
    for name, row in entries.items():
        own, best = row["own"]["settings"], row["best"]["settings"]
        changed = ", ".join(f"{key} {_short(value)}" for key, value in best.items() if own.get(key) != value)
        console.print(f"{label_of(name, row)}: {changed or 'the recipe as it is'}", soft_wrap=True)
        shares = sorted(found["importances"][name].items(), key=lambda one: -one[1])[:3]
        if shares:
            most = ", ".join(f"{key} {share:.0%}" for key, share in shares)
            console.print(f"  most important: {most}   recipe: {found['out']}/{row['recipe']}", soft_wrap=True)
        else:
            console.print(f"  recipe: {found['out']}/{row['recipe']}", soft_wrap=True)
    where = f"{found['out']}/tune.json"
    console.print(f"figures: {where}   page: {drawn_at(page)}", soft_wrap=True)


def _short(value: Any) -> str:
    from limbeck.tuning.settings import as_text

    return f"{value:.3g}" if isinstance(value, float) else as_text(value)
