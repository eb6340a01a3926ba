"""The commands that take up a finished run. Heavy imports happen inside them, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.options import Accelerator, DataRoot, RunArgument, drawn, numbers


def evaluate(
    run: RunArgument,
    data_root: DataRoot = None,
) -> None:
    """Evaluate a run's student on its test set: loss, top-1, top-5, calibration, agreement with the teacher."""
    from limbeck.cli import show
    from limbeck.runs.finished import evaluate_run

    show.evaluation(evaluate_run(run, data_root))


def export(
    run: RunArgument,
    exit: Annotated[int | None, typer.Option(help="Of a student with several exits: 1 is the shallowest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: RUN/export.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX too, checked with onnxruntime.")] = False,
) -> None:
    """Write a run's student, or one of its exits, as a plain model to ship, with its size and accuracy."""
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
) -> None:
    """Weigh a student's exits: accuracy and compute of each, and of early exit at confidence thresholds."""
    from limbeck.cli import show
    from limbeck.report.exits import write_exits_page
    from limbeck.runs.exits import THRESHOLDS, weigh_exits
    from limbeck.runs.machine import Machine

    found = weigh_exits(
        run,
        data_root,
        thresholds=THRESHOLDS if thresholds is None else numbers(thresholds),
        within=within,
        machine=Machine(accelerator, progress=False),
    )
    show.exits(found, drawn(write_exits_page, run))
