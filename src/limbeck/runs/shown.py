"""A recipe as commented YAML, and the meaning, type and default of every key, from the schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from limbeck.errors import unknown
from limbeck.recipes.methods import Places
from limbeck.recipes.schema import Recipe
from limbeck.runs.written_out import declared


class Key(NamedTuple):
    """One key of a recipe: its path, N for a position in a list; its type, default and meaning in words."""

    path: str
    type: str
    default: str
    meaning: str


class _NetworksNeededError(Exception):
    """A method's terms depend on where its networks can be compared."""


def as_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that reads as the same recipe; comments mark the defaults and give each key's meaning."""
    lines = list(_mapping(recipe, ""))
    return "\n".join([*lines, *(f"# {line}".rstrip() for line in _method(recipe))]) + "\n"


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


def _mapping(model: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        mark = [] if name in model.model_fields_set else ["default."]
        comment = " ".join([*mark, field.description or ""])
        yield from _entry(name, getattr(model, name), indent, f"  # {comment}")
    for name, value in (model.model_extra or {}).items():
        yield from _entry(name, value, indent, "")


def _entry(name: str, value: Any, indent: str, comment: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield f"{indent}{name}:{comment}"
        yield from _mapping(value, f"{indent}  ")
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        yield f"{indent}{name}:{comment}"
        for one in value:
            first, *rest = _mapping(one, f"{indent}    ")
            yield from (f"{indent}  - {first.lstrip()}", *rest)
    else:
        yield f"{indent}{_plain(name)}: {_plain(value)}{comment}"


def _plain(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf"))[1:-2]


def _method(recipe: Recipe) -> list[str]:
    """The terms that a method stands for, where they are the same for all networks."""
    method = recipe.distill.method
    if method is None:
        return []
    try:
        written, stages = declared(recipe, _no_networks)
    except _NetworksNeededError:
        return [f"The terms of the method {method} depend on the layers of the two networks."]
    distill = written.distill
    terms = [f"- {_plain(term.model_dump(mode='json', exclude_unset=True))}" for term in distill.terms]
    more = [f"Before it: {len(stages)} training stages of the method."] if stages else []
    return [f"The method {method} stands for task_weight: {distill.task_weight:g} and the terms:", *terms, *more]


class _Unknown:
    def __getattr__(self, name: str) -> Any:
        raise _NetworksNeededError


def _no_networks() -> Places:
    unknown_places: Any = _Unknown()
    return unknown_places  # type: ignore[no-any-return]


def _keys(node: Mapping[str, Any], defs: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    required = node.get("required", ())
    for name, field in node["properties"].items():
        inner = list(_inner(field))
        default = "required" if name in required else "see below" if inner and field.get("default") else None
        path = f"{prefix}{name}"
        yield Key(path, _type(field), default or _plain(field.get("default")), field.get("description", ""))
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
