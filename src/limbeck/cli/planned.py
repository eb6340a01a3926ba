"""What `limbeck plan` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import filesize
from rich.console import Console

from limbeck.cli.printing import cell, document
from limbeck.cli.printing import console as new_console
from limbeck.cli.printing import table as new_table
from limbeck.errors import counted


def planned(found: Mapping[str, Any], as_json: bool = False) -> None:
    """What a recipe will cost."""
    if as_json:
        document(found)
        return
    table = new_table(f"{found['recipe']}: {found['samples']:,} samples, {counted(found['epochs'], 'epoch')}")
    table.add_column("")
    for column in ("parameters", "multiply-adds", "ms a step", "training"):
        table.add_column(column, justify="right")
    sides = [*((f"teacher {n}", one) for n, one in enumerate(found["teachers"])), ("baseline", found["student"])]
    for name, side in sides:
        step, training = side["step_seconds"], side["training_seconds"]
        cells = [f"{side['parameters']:,}", f"{side['multiply_adds']:,}"]
        table.add_row(name, *cells, "–" if step is None else f"{1000 * step:.1f}", _duration(training))
    for stage in found.get("stages", ()):
        name = f"stage {stage['name']}, {counted(stage['epochs'], 'epoch')}, online teacher"
        table.add_row(name, "", "", "", _duration(stage["online"]))
    table.add_row("student, online teacher", "", "", "", _duration(found["online"]))
    if "stored" in found:
        table.add_row("student, stored teacher", "", "", "", _duration(found["stored"]))
    console = new_console()
    console.print(table)
    if "store" in found:
        store = found["store"]
        token = f" ({store['token_bytes']:,.0f} bytes a token)" if store.get("token_bytes") else ""
        size = f"{filesize.decimal(store['bytes'])}{token} in {counted(store['views'], 'view')}"
        speed = filesize.decimal(round(store["bytes_a_second"]))
        asked = f"{_duration(store['seconds'])} of the teacher, read at {speed}/s"
        console.print(f"stored teacher outputs: {size}, {asked}", soft_wrap=True)
    console.print(_step_memory(found["memory"], found["batch_size"]), soft_wrap=True)
    if "balance" in found:
        _balance(console, found["balance"], found["teacher_trained"])


def _step_memory(found: Mapping[str, Any], batch_size: int) -> str:
    """What a training step holds, and up to what length texts fit."""
    line = f"memory of a baseline's step: {filesize.decimal(found['step_bytes'])}"
    line += " (blocks computed anew)" if found["recomputed"] else ""
    line += f", beside {filesize.decimal(found['weight_bytes'])} of weights and optimizer"
    if "longest" not in found:
        return line
    fit = f"fit {filesize.decimal(found['memory_bytes'])} at batches of {batch_size}"
    return f"{line}; without a teacher, texts of about {found['longest']:,} tokens {fit}"


def _balance(console: Console, pulls: Sequence[Mapping[str, Any]], teacher_trained: bool) -> None:
    """How strongly each part of a loss pulls at the student."""
    of = "first batch" if teacher_trained else "first batch, with a teacher that is not trained yet"
    table = new_table(f"losses on the {of}")
    table.add_column("")
    for column in ("weight", "weighted loss", "its gradient", "times the task's"):
        table.add_column(column, justify="right")
    for pull in pulls:
        figures = (pull[key] for key in ("weight", "loss", "gradient", "share"))
        name = f"{pull['stage']}: {pull['name']}" if "stage" in pull else pull["name"]
        table.add_row(name, *(cell(figure, ".3g") for figure in figures))
    console.print(table)
    for pull in pulls:
        if pull["warning"]:
            console.print(pull["warning"], soft_wrap=True)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
