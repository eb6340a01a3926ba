"""The meaning, type and default of every key of recipes, from the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from limbeck.errors import unknown
from limbeck.recipes.schema import Recipe


class Key(NamedTuple):
    """One key of a recipe: its path, N for a position in a list; its type, default and meaning in words."""

    path: str
    type: str
    default: str
    meaning: str


def keys(asked: str | None = None) -> list[Key]:
    """Every key of a recipe, or one with those below it; a number in a path stands for N.

    Raises:
        RequestError: There is no such key.
    """
    schema = Recipe.model_json_schema()
    found = list(_keys(schema, schema["$defs"], ""))
    if asked is None:
        return found
    path = ".".join("N" if part.isdecimal() else part for part in asked.split("."))
    for one in _alone_or_listed(schema):  # teacher.0.epochs is described as teacher.epochs
        if f"{path}.".startswith(f"{one}.N."):
            path = f"{one}{path.removeprefix(f'{one}.N')}"
    chosen = [key for key in found if key.path == path or key.path.startswith(f"{path}.")]
    if not chosen:
        raise unknown("key", asked, [key.path for key in found])
    return chosen


def _alone_or_listed(schema: Mapping[str, Any]) -> list[str]:
    """The keys that hold a mapping, or a list of such."""
    return [name for name, field in schema["properties"].items() if {one for _, one in _inner(field)} == {True, False}]


def one_line(text: str) -> str:
    """A meaning that the source breaks into lines, as one."""
    return " ".join(text.split())


def plain(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))[1:-2]


def _keys(node: Mapping[str, Any], defs: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    required = node.get("required", ())
    for name, field in node["properties"].items():
        inner = list(_inner(field))
        default = "required" if name in required else "see below" if inner and field.get("default") else None
        path = f"{prefix}{name}"
        yield Key(path, _type(field), default or plain(field.get("default")), one_line(field.get("description", "")))
        for reference, listed in inner[:1]:
            yield from _keys(defs[reference.rsplit("/", 1)[1]], defs, f"{path}.N." if listed else f"{path}.")


def _inner(field: Mapping[str, Any], listed: bool = False) -> Iterator[tuple[str, bool]]:
    """The mappings that a key can hold, and whether in a list."""
    if "$ref" in field:
        yield field["$ref"], listed
    for one in field.get("anyOf", ()):
        yield from _inner(one, listed)
    if isinstance(field.get("items"), dict):
        yield from _inner(field["items"], True)


_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def _type(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return ", or ".join(map(_type, field["anyOf"]))
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    bounds = [f"{sign} {field[name]}" for name, sign in _BOUNDS.items() if name in field]
    return " ".join([_WORDS.get(str(kind), "mapping"), *bounds])
