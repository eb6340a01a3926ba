"""The JSON schema for editors: all packaged recipes are valid, and wrong ones are not."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli.commands import app
from limbeck.recipes.document import parse
from limbeck.recipes.json_schema import json_schema
from limbeck.recipes.read import names

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def valid(value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    """What JSON Schema says, of the keywords that pydantic writes."""
    if "$ref" in node and not valid(value, root["$defs"][node["$ref"].rpartition("/")[2]], root):
        return False
    if "anyOf" in node and not any(valid(value, one, root) for one in node["anyOf"]):
        return False
    kind = node.get("type")
    if kind == "null":
        return value is None
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if "enum" in node and value not in node["enum"]:
        return False
    if isinstance(value, dict):
        rest = node.get("additionalProperties", True)
        return all(name in value for name in node.get("required", ())) and all(
            valid(one, node["properties"][name], root) if name in node.get("properties", {})
            else valid(one, rest, root) if isinstance(rest, dict) else rest
            for name, one in value.items()
        )  # fmt: skip
    if isinstance(value, list):
        return all(valid(one, node.get("items", {}), root) for one in value)
    if isinstance(value, str):
        return re.search(node.get("pattern", ""), value) is not None
    low, above = node.get("minimum", value), node.get("exclusiveMinimum")
    high, below = node.get("maximum", value), node.get("exclusiveMaximum")
    if isinstance(value, int | float):
        return low <= value <= high and (above is None or value > above) and (below is None or value < below)
    return True


@pytest.mark.parametrize("name", names())
def test_packaged_recipes_are_valid(name: str) -> None:
    content = parse((files("limbeck.recipes") / f"{name}.yaml").read_text(), name)
    assert valid(content, json_schema(), json_schema())


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"epochs": 0}, False),
        ({"epochs": "many"}, False),
        ({"epochs": "${env:EPOCHS,5}"}, True),
        ({"epoch": 3}, False),
        ({"layout": "nchw"}, False),
        ({"distill": {"method": {"name": "dkd", "setting": "imagenet"}}}, True),
        ({"distill": {"method": {"nam": "dkd"}}}, False),
        ({"teacher": {"model": "mlp", "epochs": 1, "store": "memory"}}, True),
        ({"teacher": [{"model": "mlp", "epochs": 1}, {"model": "mlp", "store": {"top_k": -1}}]}, False),
        ({"variants": {"a": {"epochs": 2}}}, True),
        ({"student": None}, False),
        ({"quantize": {}}, True),
        ({"quantize": {"epochs": 0, "teacher": False, "bits": 7, "samples": 64, "lr": 0.001}}, True),
        ({"quantize": {"bits": 4}}, False),
        ({"quantize": {"epoch": 1}}, False),
        ({"quantize": True}, False),
    ],
)
def test_what_an_editor_marks(change: dict[str, Any], right: bool) -> None:
    content = {"student": {"model": "mlp", "hidden": [5]}, "distill": {"scheme": "mutual"}} | change
    assert valid(content, json_schema(), json_schema()) is right


def test_only_a_base_replaces_what_is_required() -> None:
    assert valid({"base": "digits"}, json_schema(), json_schema())
    assert not valid({"epochs": 3}, json_schema(), json_schema())


def test_it_is_printed() -> None:
    done = CliRunner().invoke(app, ["show", "--schema"])
    assert json.loads(done.stdout) == json_schema()
    assert CliRunner().invoke(app, ["show", "--schema", "digits"]).exception is not None
