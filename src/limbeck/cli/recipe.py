"""`limbeck show`: a recipe in full, and what the keys of recipes mean."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from limbeck.cli import complete
from limbeck.cli.options import Overrides
from limbeck.errors import RequestError


def show(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE[:VARIANT]|KEY]",
            help="A recipe; with --keys, a key such as data.",
            autocompletion=complete.recipes,
        ),
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Meaning, type and default of all keys, or of KEY.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema by which editors check recipes.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the student.")] = None,
    set_: Overrides = None,
) -> None:
    """Print a recipe as it will be carried out, with comments, or what the keys of recipes mean."""
    from limbeck.recipes.json_schema import json_schema
    from limbeck.recipes.keys import keys as described
    from limbeck.recipes.read import read

    if schema:
        if recipe is not None or keys or set_ or epochs is not None:
            raise RequestError("--schema describes all recipes; leave the recipe and the other options out")
        print(json.dumps(json_schema(), indent=2))  # noqa: T201
    elif keys:
        if set_ or epochs is not None:
            raise RequestError("--keys describes the keys of all recipes; leave --set and --epochs out")
        for key in described(recipe):
            print(f"{key.path}: {key.type}; default: {key.default}\n    {key.meaning}")  # noqa: T201
    elif recipe is None:
        raise RequestError("name a recipe, such as limbeck show digits, or ask for the keys: limbeck show --keys")
    else:
        made = read(recipe, set_ or [], epochs)
        from limbeck.runs.shown import as_yaml

        print(as_yaml(made), end="")  # noqa: T201
