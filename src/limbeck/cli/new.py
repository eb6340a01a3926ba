"""`limbeck new`: a starter recipe for the user's own models and data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.complete import data_sets, files_too, methods, models, tasks


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe to write, NAME.yaml; never overwritten.")],
    teacher: Annotated[
        str,
        typer.Option(
            help="A name of 'limbeck list models', FILE.py:function, package.module:function, a model's file or "
            "folder, or '{model: NAME, OPTION: VALUE}'.",
            autocompletion=models,
        ),
    ],
    student: Annotated[str, typer.Option(help="Likewise: the network that is trained.", autocompletion=models)],
    data: Annotated[
        str,
        typer.Option(
            help="A folder of images, a name of 'limbeck list data', FILE.py:function, or '{name: NAME, KEY: VALUE}'.",
            autocompletion=data_sets,
        ),
    ],
    teacher_weights: Annotated[
        str | None, typer.Option(help="File of the teacher's weights.", autocompletion=files_too)
    ] = None,
    student_weights: Annotated[
        str | None, typer.Option(help="File of weights from which the student begins.", autocompletion=files_too)
    ] = None,
    teacher_epochs: Annotated[
        int | None, typer.Option(help="Epochs of the teacher's training. Default: 10, or none if it comes trained.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of the student.")] = 10,
    method: Annotated[
        str | None,
        typer.Option(help="A method of 'limbeck list methods'. Default: by the task.", autocompletion=methods),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What is learned, such as regression. Default: the data set's own.", autocompletion=tasks),
    ] = None,
) -> None:
    """Write a commented recipe for your own models and data, which runs as it is."""
    from limbeck.runs.starter.recipe import Wishes, write_starter

    wishes = Wishes(teacher, student, data, teacher_weights, student_weights, teacher_epochs, epochs, method, task)
    write_starter(file, wishes)
    name = shlex.quote(str(file))
    print(f"written: {file}   run it: limbeck run {name}   keys: limbeck show {name}")  # noqa: T201
