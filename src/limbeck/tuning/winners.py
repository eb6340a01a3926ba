"""The winners as recipe files: ready to run, and in comments where their settings come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import limbeck
from limbeck.engine.saving.files import write_text
from limbeck.recipes import schema
from limbeck.tuning.contenders import Contender
from limbeck.tuning.settings import as_text


def write_winner(
    folder: Path, contender: Contender, recipe: schema.Recipe, best: Mapping[str, Any], about: Mapping[str, str]
) -> Path:
    """Write best-NAME.yaml.

    Args:
        folder: Where it goes.
        contender: Whose best trial it is.
        recipe: The contender's with the settings of that trial.
        best: The trial's record.
        about: Further lines, by what they are about.
    """
    named = recipe.model_copy(update={"name": f"{recipe.name.replace(':', '-')}-best-{contender.folder}"[:100]})
    content = named.model_dump(mode="json", exclude_defaults=True)
    changed = {key: value for key, value in best["settings"].items() if contender.own.get(key) != value}
    lines = [
        f"Made by limbeck tune (limbeck {limbeck.__version__}): the best setting of {contender.label}, trial "
        f"{best['number'] + 1} of its search.",
        *(f"{name}: {text}" for name, text in about.items()),
        "Changed by the search:" if changed else "Changed by the search: nothing; the recipe's own setting was best.",
        *(f"  {key}: {as_text(value)}" for key, value in changed.items()),
    ]
    if contender.taught:
        lines.append("The row `baseline` of limbeck run has these settings too, and not its own best ones.")
    else:
        lines.append("It is the baseline's: the row `baseline` of limbeck run has these settings.")
    path = folder / f"best-{contender.folder}.yaml"
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(path, "".join(f"# {line}\n" for line in lines) + text)
    return path
