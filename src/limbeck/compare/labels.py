"""What the recipe's own way to distil is called in tables: by what it does, not "recipe"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from limbeck.compare.cells import OWN
from limbeck.distillers.by_epoch import is_schedule
from limbeck.recipes import schema


def own_label(recipe: schema.Recipe, others: Collection[str] = ()) -> str:
    """A recipe's way to distil in a few words: scheme, method or terms with their temperatures.

    Args:
        recipe: Whose way it is.
        others: The names beside it; where one of them is the same, "(recipe)" is added.
    """
    distill = recipe.distill
    what = distill.method or " + ".join(map(_term, distill.terms))
    label = what if distill.scheme == "offline" else ": ".join(filter(None, (distill.scheme, what)))
    return f"{label} ({OWN})" if label in others else label


def label_of(name: str, row: Mapping[str, Any]) -> str:
    """What a method of compare.json is called in tables."""
    return str(row.get("label", name))


def _term(term: schema.Term) -> str:
    temperature = term.options.get("temperature")
    at = "" if term.student == "logits" else f" of {term.student if isinstance(term.student, str) else 'maps'}"
    return f"{term.name or term.loss}{at}{'' if temperature is None else f' T={_number(temperature)}'}"


def _number(value: Any) -> str:
    """A number, or from where to where it goes by epoch."""
    if is_schedule(value):
        return f"{value['from']:g}" + (f" → {value['to']:g}" if "to" in value else f" by {value['name']}")
    return f"{value:g}" if isinstance(value, int | float) else str(value)
