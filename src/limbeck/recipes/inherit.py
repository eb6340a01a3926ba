"""A recipe's base, laid under it, and what it takes from the environment: before any key is checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from limbeck.errors import RequestError, shown, unknown
from limbeck.recipes.document import parse

BASE = "base"
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)(?:,(.*))?", re.DOTALL)

Load = Callable[[str], dict[str, Any]]
"""Reads what a recipe names as its base."""


def with_base(content: dict[str, Any], load: Load) -> dict[str, Any]:
    """The recipe laid over its base: mappings key by key, all else in the place of what is there; KEY- removes a key.

    Args:
        content: What the recipe's file holds; `base` names the other recipe.
        load: Reads the base, with its own base below it.

    Raises:
        RequestError: `base` is no text, or a key that is to be removed is not there.
    """
    if BASE not in content:
        return content
    base = content[BASE]
    if not isinstance(base, str):
        raise RequestError(f"base is the name of a recipe or the path of a YAML file, not {shown(base)}")
    below = {key: value for key, value in load(base).items() if key != "name"}
    return _laid_over(below, {key: value for key, value in content.items() if key != BASE})


def _laid_over(below: Mapping[str, Any], above: Mapping[Any, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(key, str) and key.endswith("-"):
            remove(merged, key[:-1], f"the key {shown(key)}")
        elif isinstance(value, dict):
            there = merged.get(key)
            merged[key] = _laid_over(there if isinstance(there, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def remove(place: dict[str, Any], key: str, what: str) -> None:
    """Take a key out of a mapping.

    Raises:
        RequestError: It is not there.
    """
    if key not in place:
        raise RequestError(f"{what} removes what is not there: {unknown('key', key, map(str, place))}")
    del place[key]


def resolved(value: Any) -> Any:
    """The value with ${env:NAME} and ${env:NAME,DEFAULT} replaced: alone read as YAML, within a text as text.

    Raises:
        RequestError: There is no such variable and no default, or it is another reference.
    """
    if isinstance(value, dict):
        return {key: resolved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner) for inner in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    alone = _REFERENCE.fullmatch(value)
    if alone:
        return parse(_variable(alone), shown(value))
    return _REFERENCE.sub(_variable, value)


def _variable(reference: re.Match[str]) -> str:
    found = _VARIABLE.fullmatch(reference[1])
    if found is None:
        raise RequestError(f"{shown(reference[0])} refers to nothing; write ${{env:NAME}} or ${{env:NAME,DEFAULT}}")
    name, default = found[1], found[2]
    value = os.environ.get(name, default)
    if value is None:
        raise RequestError(
            f"the environment has no variable {name}, which the recipe reads; set it, or give a default: "
            f"${{env:{name},DEFAULT}}"
        )
    return value
