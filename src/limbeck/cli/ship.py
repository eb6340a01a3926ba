"""`limbeck ship`. Heavy imports happen inside it, so that --help answers at once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.options import DataRoot, Quiet, names, whole_numbers

Runs = Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of finished runs.")]

FORMATS = "Comma-separated. Default: safetensors,onnx,onnx-fp16,onnx-int8,pt2. Also: openvino, executorch, litert."


def ship(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="Folder. Default, of one run: RUN/ship.")] = None,
    formats: Annotated[str | None, typer.Option(help=FORMATS)] = None,
    int8: Annotated[bool, typer.Option(help="Make int8 files.")] = True,
    threads: Annotated[int, typer.Option(help="Threads on which everything is measured.", min=1)] = 1,
    batch: Annotated[str, typer.Option(help="Comma-separated batch sizes whose latency is measured.")] = "1,32",
    tolerance: Annotated[
        float, typer.Option(help="Points that int8 may lose; a file that loses more is refused.")
    ] = 0.3,
    seconds: Annotated[float, typer.Option(help="For the search of one int8 file.")] = 60.0,
    preprocessing: Annotated[str, typer.Option(help="Normalisation inside the files or beside them.")] = "inside",
    postprocessing: Annotated[str, typer.Option(help="Softmax inside the files or beside them.")] = "beside",
    retrain: Annotated[bool, typer.Option(help="Train for int8, a tenth of the epochs, what int8 hurts.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, by a process a file.")] = True,
    data_root: DataRoot = None,
    quiet: Quiet = False,
) -> None:
    """Write runs' students as files for a device, and score each there, beside teacher and baseline."""
    from limbeck.cli import shipped as show
    from limbeck.shipping import ship as carry_out

    found = carry_out(
        runs,
        out=out,
        formats=None if formats is None else names(formats),
        int8=int8,
        threads=threads,
        batch=whole_numbers(batch, "--batch"),
        tolerance=tolerance,
        seconds=seconds,
        preprocessing=preprocessing,
        postprocessing=postprocessing,
        retrain=retrain,
        memory=memory,
        root=data_root,
        command=shlex.join(["limbeck", *sys.argv[1:]]),
        progress=not quiet,
    )
    show.shipped(found)
