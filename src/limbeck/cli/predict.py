"""`limbeck predict`: a trained student's answers about files, a row each."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.options import Accelerator, Quiet, Threads, names, use_threads
from limbeck.errors import unknown

if TYPE_CHECKING:
    from limbeck.runs.finished.predict import Prediction

FORMATS = ("csv", "jsonl")


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, an export, or a student's JSON file.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATHS...",
            help="Images and folders of them; vectors as .csv or .npy; texts as .txt, .jsonl, .tsv, .csv or .parquet.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File for the rows. Default: standard output.")] = None,
    format: Annotated[
        str | None, typer.Option(help="csv or jsonl (JSON lines). Default: as --out ends, else csv.")
    ] = None,
    top: Annotated[int, typer.Option(help="So many likeliest classes of each sample.", min=1)] = 1,
    exit: Annotated[
        int | None, typer.Option(help="Of a student with several exits: 1 is the shallowest. Default: all together.")
    ] = None,
    column: Annotated[str, typer.Option(help="Of files of texts: the column that holds them.")] = "text",
    columns: Annotated[
        str | None, typer.Option(help="Comma-separated: all columns of .tsv and .csv files without a line of names.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples that are computed at once.", min=1)] = None,
    accelerator: Accelerator = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Predict the classes of images, vectors or texts with a run's student: file, class name, probability."""
    chosen = format or ("jsonl" if out is not None and out.suffix.lower() in (".jsonl", ".json") else "csv")
    if chosen not in FORMATS:
        raise unknown("format", chosen, FORMATS)
    use_threads(threads)
    from limbeck.runs.finished.predict import predictor
    from limbeck.runs.machine import Machine

    machine = Machine(accelerator, progress=False)
    given = () if columns is None else names(columns)
    student = predictor(run, exit=exit, machine=machine, column=column, columns=given)
    with _progress(not quiet, bar=out is not None or not sys.stdout.isatty()) as after:
        lines = _rows(student.predict(paths, top=top, batch_size=batch_size, after=after), chosen, top)
        if out is None:
            for line in lines:
                sys.stdout.write(line)
        else:
            from limbeck.engine.saving.files import write_text

            write_text(out, "".join(lines))


def _rows(predictions: Iterable[Prediction], form: str, top: int) -> Iterator[str]:
    """The lines to write, each as soon as it is known."""
    if form == "jsonl":
        yield from (json.dumps(one.as_dict()) + "\n" for one in predictions)
        return
    more = [f"{column}_{rank}" for rank in range(2, top + 1) for column in ("class", "probability")]
    head: list[str] | None = ["file", "class", "probability", *more]
    for one in predictions:
        cells = [cell for name, probability in one.top for cell in (name, f"{probability:.6f}")]
        yield ("" if head is None else _csv(head)) + _csv([one.file, *cells])
        head = None


def _csv(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


@contextmanager
def _progress(shown: bool, bar: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar where stderr is a terminal, and no rows are printed between; one line at the end elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from limbeck.notices import tell

    bar = shown and bar and sys.stderr.isatty()
    columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # Rows go to standard output as ever: redirected, they would be printed above the bar.
    with Progress(*columns, console=console, transient=True, disable=not bar, redirect_stdout=False) as progress:
        task = progress.add_task("files", total=None)

        def after(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)
            if done == of and shown and not bar:
                tell(f"read {done:,} of {of:,} files")

        yield after
