"""Recipes from YAML: packaged or the user's own, with overrides, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from limbeck.errors import RequestError, nearest, unknown
from limbeck.recipes.schema import Model, Recipe


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in files("limbeck.recipes").iterdir() if p.name.endswith(".yaml"))


def read(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and check it.

    Args:
        source: A packaged name, or a path to a YAML file; ":NAME" behind it chooses one of the recipe's variants.
        overrides: "key.path=value" each; the value is YAML, and numbers in the path count list elements.

    Raises:
        RequestError: An unknown name, key or value; one line with the nearest valid choice.
    """
    source, _, variant = source.partition(":")
    content, name = _content(source)
    content.setdefault("name", name)
    choices = content.pop("variants", {})
    if variant:
        content = _varied(content, choices, variant)
    for override in overrides:
        _override(content, override)
    return check(content, source)


def check(content: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A Recipe from a mapping.

    Raises:
        RequestError: A key or value that does not belong there.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RequestError(f"{source}: {_explain(error)}") from error


def model(text: str) -> Model:
    """A model by its name, or as a recipe gives it: "{model: mobilenet_v1, stem_stride: 1}".

    Raises:
        RequestError: It is neither.
    """
    try:
        return Model.model_validate(yaml.safe_load(text) if text.startswith("{") else {"model": text})
    except (yaml.YAMLError, ValidationError) as error:
        raise RequestError(
            f"a model is a name or a mapping such as '{{model: mlp, hidden: [64]}}', not {text!r}"
        ) from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _content(source: str) -> tuple[dict[str, Any], str]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"cannot read the recipe {source}: {getattr(error, 'strerror', None) or error}"
            ) from error
    elif source in names():
        text = (files("limbeck.recipes") / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise RequestError(f"{unknown('recipe', source, names())}; or give the path of a YAML file")
    try:
        content = _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RequestError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{source} must be a mapping with the keys {', '.join(Recipe.model_fields)}")
    return content, path.stem


def variants(source: str) -> list[str]:
    """The names of a recipe's variants.

    Raises:
        RequestError: There is no such recipe.
    """
    return list(_content(source.partition(":")[0])[0].get("variants", {}))


def _varied(content: dict[str, Any], choices: Any, variant: str) -> dict[str, Any]:
    """The recipe with the keys of a variant in the place of its own."""
    if not isinstance(choices, dict) or not isinstance(choices.get(variant), dict):
        raise unknown(f"variant of {content['name']}", variant, choices if isinstance(choices, dict) else ())
    return {**content, **choices[variant], "name": f"{content['name']}:{variant}"}


def _override(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RequestError(f"--set takes key.path=value, not {override!r}")
    try:
        value = _numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RequestError(f"--set {override!r}: the value is not valid YAML") from error
    *parents, last = path.split(".")
    place: Any = content
    for key in parents:
        place = place[_position(place, key, path)] if isinstance(place, list) else place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise RequestError(f"--set {path}: {key!r} holds a value, and no keys")
    place[_position(place, last, path) if isinstance(place, list) else last] = value


def _position(place: list[Any], key: str, path: str) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise RequestError(f"--set {path}: {key!r} is no element of a list of {len(place)}; count from 0")
    return int(key)


def _numbers(value: Any) -> Any:
    """The value with numbers such as 1e-3 as numbers: YAML 1.1 takes them for text."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+e[+-]?[0-9]+", value):
        return float(value)
    return value


def _explain(error: ValidationError) -> str:
    fault = max(error.errors(), key=lambda one: len(one["loc"]))  # the deepest branch of a union says most
    path = [str(part) for part in fault["loc"] if part not in ("Teacher", "list[Teacher]", "str", "list[str]")]
    where = ".".join(path) or "recipe"
    if fault["type"] == "extra_forbidden":
        valid = _fields(Recipe, path[:-1])
        close = nearest(path[-1], valid)
        hint = f"did you mean {' or '.join(close)}?" if close else f"valid: {', '.join(valid)}"
        return f"unknown key {where!r}; {hint}"
    if fault["type"] == "missing":
        return f"the key {where!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}, and it is {fault['input']!r}"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that are valid at a path of the schema."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
        model = inner[0] if inner else model
    return list(model.model_fields)
