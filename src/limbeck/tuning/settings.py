"""Settings of a recipe: values by dotted keys, what a recipe has there already, and the recipe with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import yaml

from limbeck.distillers import Distiller
from limbeck.engine.optimizers.named import OPTIMIZERS
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.overrides import override
from limbeck.recipes.read import check
from limbeck.runs import learners
from limbeck.runs.written_out import setting_of
from limbeck.tuning.space import Space

Settings = dict[str, Any]
MISSING = object()


def with_settings(recipe: schema.Recipe, settings: Mapping[str, Any]) -> schema.Recipe:
    """The recipe with these values; `*` in a key stands for every element of a list.

    Raises:
        RequestError: A key that leads nowhere, or a value that does not belong there.
    """
    content = recipe.model_dump(mode="json")
    for key, value in settings.items():
        for path in paths(content, key):
            override(content, f"{path}={as_text(value)}")
    return check(content, recipe.name)


def own_settings(recipe: schema.Recipe, space: Space) -> Settings:
    """What the recipe itself has at a space's keys, where that is one of the space's values."""
    content = recipe.model_dump(mode="json")
    found = {key: own_value(recipe, content, key) for key in space}
    return {key: space[key].as_its_own(value) for key, value in found.items() if space[key].has(value)}


def own_value(recipe: schema.Recipe, content: Mapping[str, Any], key: str) -> Any:
    """What a recipe has at a key, or what it comes to where the key is left out; MISSING where neither is known."""
    try:
        places = paths(content, key)
    except RequestError:
        return MISSING
    there = {path: _at(content, path) for path in places}
    values = [_implied(recipe, path) if one is MISSING or one is None else one for path, one in there.items()]
    alike = bool(values) and all(one == values[0] for one in values)
    return values[0] if alike else MISSING


def paths(content: Mapping[str, Any], key: str) -> list[str]:
    """The key once for each element of every list at whose place a `*` stands.

    Raises:
        RequestError: There is no such list, or an empty one.
    """
    before, star, after = key.partition("*")
    if not star:
        return [key]
    place = _at(content, before.rstrip("."))
    if not isinstance(place, list) or not place:
        raise RequestError(f"{key}: there is no list at {before.rstrip('.')} whose elements * could stand for")
    return [path for number in range(len(place)) for path in paths(content, f"{before}{number}{after}")]


def as_text(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=float("inf")).strip()[1:-1]


def _at(content: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(content, Mapping):
            content = content.get(part, MISSING)
        elif isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        else:
            return MISSING
    return content


def _implied(recipe: schema.Recipe, path: str) -> Any:
    """The default of an option that a recipe leaves out, by the signature of what takes it."""
    parts = path.split(".")
    if path == "distill.task_weight" and recipe.distill.method is not None:
        return setting_of(recipe.distill.method).task_weight
    maker: Any = Distiller if path == "distill.task_weight" else None
    if len(parts) == 2 and parts[0] == "optimizer":
        maker = OPTIMIZERS.get(recipe.optimizer.name)
    if len(parts) == 4 and parts[:2] == ["distill", "terms"]:
        loss = learners.loss(recipe.distill.terms[int(parts[2])].loss)
        maker = getattr(loss, "for_shapes", loss)
    parameter = inspect.signature(maker).parameters.get(parts[-1]) if maker else None
    plain = parameter is not None and isinstance(parameter.default, int | float | str | bool)
    return parameter.default if parameter is not None and plain else MISSING
