"""The commands that take up a finished run. Heavy imports happen inside them, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.options import (
    Accelerator,
    AsJson,
    DataRoot,
    RunArgument,
    Threads,
    drawn,
    numbers,
    use_threads,
)


def evaluate(
    run: RunArgument,
    data_root: DataRoot = None,
    report: Annotated[
        bool, typer.Option("--report", help="Figures by class, confusion matrix, surest mistakes: into the run folder.")
    ] = False,
    accelerator: Accelerator = "auto",
    as_json: AsJson = False,
    threads: Threads = None,
) -> None:
    """Evaluate a run's student on its test set: loss, top-1, top-5, calibration, agreement with the teacher."""
    use_threads(threads)
    from limbeck.cli import show
    from limbeck.cli.printing import document
    from limbeck.runs.finished.read import evaluate_run
    from limbeck.runs.machine import Machine

    machine = Machine(accelerator, progress=False)
    if not report:
        found = evaluate_run(run, data_root, machine)
        document(found) if as_json else show.evaluation(found)
        return
    from limbeck.cli.classes import by_class, written
    from limbeck.report.classes import write_report
    from limbeck.runs.finished.answers import answers

    said = answers(run, data_root, machine)
    if not as_json:
        show.evaluation(said.figures)
        by_class(said.as_dict())
    files = write_report(run, said)
    if as_json:
        document({**said.as_dict(), "files": [str(path) for path in files]})
    else:
        written(files)


def export(
    run: RunArgument,
    exit: Annotated[int | None, typer.Option(help="Of a student with several exits: 1 is the shallowest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: RUN/export.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX too, checked with onnxruntime.")] = False,
    threads: Threads = None,
) -> None:
    """Write a run's student, or one of its exits, as a plain model to ship, with its size and accuracy."""
    use_threads(threads)
    from limbeck.cli import show
    from limbeck.export import export_run

    show.exported(export_run(run, exit=exit, out=out, onnx=onnx))


def exits(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run of self-distillation.")],
    thresholds: Annotated[str | None, typer.Option(help="Comma-separated confidences. Default: 0.5 to 0.999.")] = None,
    within: Annotated[
        float | None, typer.Option(help="Share of accuracy that early exit may lose on validation. Default: 0.005.")
    ] = None,
    data_root: DataRoot = None,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
) -> None:
    """Evaluate a student's exits: accuracy and compute of each, and of early exit at confidence thresholds."""
    use_threads(threads)
    from limbeck.cli import show
    from limbeck.report.exits import write_exits_page
    from limbeck.runs.finished.exits import THRESHOLDS, weigh_exits
    from limbeck.runs.machine import Machine

    found = weigh_exits(
        run,
        data_root,
        thresholds=THRESHOLDS if thresholds is None else numbers(thresholds),
        within=within,
        machine=Machine(accelerator, progress=False),
    )
    show.exits(found, drawn(write_exits_page, run))
