"""The JSON schema by which editors check and complete recipes as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.recipes.schema import Recipe

_REFERENCE = {"type": "string", "pattern": r"\$\{env:"}
"""What stands in the place of any number or choice: a value from the environment."""
_SHORT: Mapping[tuple[str, str], dict[str, Any]] = {
    ("Teacher", "store"): {"type": "string"},
    ("Distill", "method"): {
        "type": "object",
        "properties": {"name": {"type": "string"}, "setting": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}
"""Shorter or longer forms of keys, which reading brings to their own form."""
_FILE = {
    "base": {"type": "string", "description": "The recipe under this one: a packaged name, or a YAML file beside it."},
    "variants": {
        "type": "object",
        "description": "Names, each with the keys that it has in the place of the recipe's.",
        "additionalProperties": {"type": "object"},
    },
}
"""Keys of a file, which no recipe has once it is read."""


def json_schema() -> dict[str, Any]:
    """The schema of a recipe's file, of draft 2020-12. With a `base` no key is required."""
    schema = Recipe.model_json_schema()
    for (kind, key), form in _SHORT.items():
        field = schema["$defs"][kind]["properties"][key]
        kept = {name: field.pop(name) for name in ("$ref", "anyOf", "type") if name in field}
        field["anyOf"] = [*kept.get("anyOf", [kept]), form]
    schema["properties"] |= _FILE
    schema["anyOf"] = [{"required": ["base"]}, {"required": schema.pop("required")}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_references(schema)}


def _with_references(node: Any) -> Any:
    """The same, with a reference to the environment allowed in the place of numbers, truth values and choices."""
    if isinstance(node, list):
        return [_with_references(one) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in ("integer", "number", "boolean") or "enum" in node:
        said = {name: node[name] for name in ("default", "description", "title") if name in node}
        return {**said, "anyOf": [{name: one for name, one in node.items() if name not in said}, dict(_REFERENCE)]}
    return {name: one if name == "default" else _with_references(one) for name, one in node.items()}
