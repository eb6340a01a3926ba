"""The commands. Heavy imports happen inside them, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli import complete
from limbeck.cli.cache import WithBareWhere, cache
from limbeck.cli.compare import compare
from limbeck.cli.finished import evaluate, exits, export
from limbeck.cli.interrupts import resumable
from limbeck.cli.new import new
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
    limits,
    loggers,
    overrides,
    root_of,
    shape_of,
    use_threads,
    version,
)
from limbeck.cli.predict import predict
from limbeck.cli.printing import document
from limbeck.cli.recipe import show as show_recipe
from limbeck.cli.report import report
from limbeck.cli.ship import ship
from limbeck.cli.table import table
from limbeck.cli.tune import tune

app = typer.Typer(
    name="limbeck",
    help="Knowledge distillation: a teacher and a student in, a small plain model out.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@app.callback()
def limbeck(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show limbeck's version.")
    ] = False,
) -> None:
    """Knowledge distillation: a teacher and a student in, a small plain model out."""


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: the first free of runs/RECIPE, -2, …")] = None,
    data_root: DataRoot = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the student, its data order and dropout.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of baseline and distilled student.")] = None,
    set_: Overrides = None,
    limit_steps: LimitSteps = None,
    limit_samples: LimitSamples = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    baseline: Annotated[bool, typer.Option(help="Train the student without the teacher too.")] = True,
    retrain_teacher: Annotated[bool, typer.Option("--retrain-teacher", help="Do not reuse a kept teacher.")] = False,
    accelerator: Accelerator = "auto",
    devices: Devices = "1",
    num_nodes: NumNodes = 1,
    strategy: Strategy = "auto",
    deterministic: Deterministic = False,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard into the run folder.")
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Distil a teacher into a student, and say what that gained over the baseline."""
    from limbeck.recipes.read import read

    given = {"seed": seed, "precision": precision, **limits(limit_steps, limit_samples)}
    made = read(recipe, overrides(set_, given), epochs)
    use_threads(threads)
    from limbeck.cli import show
    from limbeck.engine.devices.fabric import is_first
    from limbeck.runs.folder import choose
    from limbeck.runs.machine import Machine

    proposed = choose(out, made.name, resume)
    root = root_of(data_root, made, proposed if resume else None)
    logs = loggers(tensorboard, proposed)
    machine = Machine(accelerator, count(devices), strategy, not quiet, logs, num_nodes, deterministic)
    from limbeck.runs.run import run as carry_out

    folders: list[Path] = []

    def began(folder: Path) -> None:
        folders.append(folder)
        logs[:] = loggers(tensorboard, folder)

    with resumable(folders):
        result = carry_out(
            made,
            root=root,
            out=out,
            resume=resume,
            baseline=baseline,
            retrain_teacher=retrain_teacher,
            machine=machine,
            began=began,
        )
    if is_first():
        document(result) if as_json else show.result(result)


app.command()(compare)


@app.command()
def diagnose(
    recipe: RecipeArgument,
    data_root: DataRoot = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the student; it picks the training samples.")] = None,
    set_: Overrides = None,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what the recipe's teacher has to teach: accuracy, soft labels, calibration; train it if it is not kept."""
    from limbeck.recipes.read import read

    made = read(recipe, [*(set_ or []), *([] if seed is None else [f"seed={seed}"])])
    use_threads(threads)
    from limbeck.cli import show
    from limbeck.runs.diagnose import diagnose_recipe
    from limbeck.runs.machine import Machine

    machine = Machine(accelerator, progress=not quiet)
    with resumable():
        found = diagnose_recipe(made, root=root_of(data_root, made), machine=machine)
    show.diagnosis(found, as_json=as_json)
    if found["diagnosis"]["warning"]:
        print(f"limbeck: {found['diagnosis']['warning']}", file=sys.stderr)  # noqa: T201


app.command()(tune)
app.command()(new)
app.command()(evaluate)
app.command()(predict)
app.command()(table)
app.command()(report)
app.command()(export)
app.command()(exits)
app.command()(ship)
app.command(cls=WithBareWhere)(cache)
app.command("show")(show_recipe)


@app.command()
def plan(
    recipe: RecipeArgument,
    samples: Annotated[int | None, typer.Option(help="Estimate for so many training samples.", min=1)] = None,
    data_root: DataRoot = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the student.")] = None,
    set_: Overrides = None,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe will cost on this machine, from a probe of a few steps."""
    from limbeck.recipes.read import read

    made = read(recipe, set_ or [], epochs)
    use_threads(threads)
    from limbeck.cli.planned import planned
    from limbeck.runs.cost.estimate import plan as carry_out
    from limbeck.runs.machine import Machine

    planned(carry_out(made, root=root_of(data_root, made), samples=samples, machine=Machine(accelerator)), as_json)


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, or '{model: NAME, OPTION: VALUE}'; of two, the teacher.")
    ],
    other: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The student.")] = None,
    input: Annotated[str, typer.Option(metavar="CxHxW", help="One sample's shape.")] = "3x32x32",
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
) -> None:
    """List a model's taps, modules and operations, with shapes; for a teacher and a student, propose pairs."""
    from limbeck.cli import show
    from limbeck.models.inspect import inspect as look
    from limbeck.recipes.read import model as read_model

    shape = shape_of(input)
    specs = [read_model(text) for text in (model, other) if text is not None]
    show.models([look(spec.model, shape, classes, **spec.options) for spec in specs])


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[recipes|methods|losses|models|data]",
            autocompletion=complete.words("data", "losses", "methods", "models", "recipes"),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the names that a recipe can use."""
    from limbeck.cli import show
    from limbeck.cli.names import names

    found = names(kind)
    document(found) if as_json else show.names(found)
