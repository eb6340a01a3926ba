"""Recipes from YAML: packaged or the user's own, with overrides, checked key by key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from limbeck.errors import VALUE, RequestError, nearest, shown, unknown
from limbeck.options import expected
from limbeck.recipes.document import CHARACTERS, parse
from limbeck.recipes.inherit import resolved, with_base
from limbeck.recipes.length import at_length
from limbeck.recipes.overrides import override as apply
from limbeck.recipes.schema import Model, Recipe, check_name

EXAMPLES = {
    "data": "{name: digits}",
    "teacher": "{model: mlp, epochs: 5}",
    "student": "{model: mlp}",
    "distill": "{method: kd}",
    "optimizer": "{name: sgd, lr: 0.1}",
    "schedule": "{name: cosine}",
    "options": "{temperature: 3}",
}
"""What stands under the keys that hold further keys, for errors."""


def names() -> list[str]:
    """The packaged recipes."""
    return sorted(p.name.removesuffix(".yaml") for p in files("limbeck.recipes").iterdir() if p.name.endswith(".yaml"))


def read(source: str, overrides: Iterable[str] = (), epochs: int | None = None) -> Recipe:
    """Read a recipe and check it.

    Args:
        source: A packaged name, or a path to a YAML file; ":NAME" behind it chooses one of the recipe's variants.
        overrides: As `--set` takes them: "key.path=value", "key.path+=value" or "key.path-" each.
        epochs: Train so long; what is counted in epochs, such as milestones, keeps its share of the whole.

    Raises:
        RequestError: An unknown name, key or value; one line with the nearest valid choice.
    """
    source, variant = parted(source)
    content, name = _content(source)
    content.setdefault("name", name)
    choices = _choices(content)
    if variant:
        content = _varied(content, choices, variant)
    for override in overrides:
        apply(content, override)
    _place_data(content, Path.cwd())
    if epochs is None:
        return check(content, source)
    whole = check(content, source)
    check(content | {"epochs": epochs}, source)
    return at_length(whole, epochs)


def parted(source: str) -> tuple[str, str]:
    """A recipe's name or path, and the variant behind it or ""; folders on the way may have a colon in their names.

    >>> parted("digits:best"), parted("/runs/a:b/recipe.yaml")
    (('digits', 'best'), ('/runs/a:b/recipe.yaml', ''))
    """
    name, colon, variant = source.rpartition(":")
    if not colon or _is_file(Path(source)) or {"/", "\\"} & set(variant):
        return source, ""
    return name, variant


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
        return Model.model_validate(parse(text, "the model") if text.startswith("{") else {"model": text})
    except (RequestError, ValidationError) as error:
        raise RequestError(
            f"a model is a name or a mapping such as '{{model: mlp, hidden: [64]}}', not {shown(text)}"
        ) from error


def dump(recipe: Recipe, variants: Mapping[str, Recipe] | None = None) -> str:
    """The recipe as YAML, every default written out; and its variants, by how they distil."""
    content = recipe.model_dump(mode="json")
    if variants:
        content["variants"] = {name: {"distill": one.distill.model_dump(mode="json")} for name, one in variants.items()}
    return yaml.safe_dump(content, sort_keys=False)


def recorded_variants(path: Path) -> dict[str, Recipe]:
    """The variants in a comparison's own recipe; none where it has none yet, or cannot be read."""
    try:
        return read_variants(str(path), variants(str(path))) if path.exists() else {}
    except RequestError:
        return {}


def read_variants(
    source: str, chosen: Iterable[str], overrides: Iterable[str] = (), epochs: int | None = None
) -> dict[str, Recipe]:
    """Some variants of a recipe, laid over the recipe with its overrides: a variant keeps the keys that it gives.

    Raises:
        RequestError: As `read` raises; variants that are not chosen are not read.
    """
    content, name = _content(source)
    content.setdefault("name", name)
    choices = _choices(content)
    for override in overrides:
        apply(content, override)
    _place_data(content, Path.cwd())
    found = {one: check(_varied(content, choices, one), f"{source}:{one}") for one in chosen}
    if epochs is None:
        return found
    return {one: recipe if "epochs" in choices[one] else at_length(recipe, epochs) for one, recipe in found.items()}


def _content(source: str, above: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """What a recipe's file holds, laid over its base; and the recipe's name."""
    path = Path(source)
    packaged = source in names() and path.suffix not in (".yaml", ".yml") and not _is_file(path)
    if not packaged and path.suffix not in (".yaml", ".yml") and not _is_file(path):
        raise RequestError(f"{unknown('recipe', source, names())}; or give the path of a YAML file")
    place = source if packaged else os.path.realpath(path)
    if place in above:
        raise RequestError(f"the recipe {source} is its own base ({' → '.join((*above, place))}); leave one base out")
    text = (files("limbeck.recipes") / f"{source}.yaml").read_text(encoding="utf-8") if packaged else _text(path)
    content = parse(text, source)
    if not isinstance(content, dict):
        raise RequestError(f"{source} must be a mapping with the keys {', '.join(Recipe.model_fields)}")

    content = resolved(content)
    _place_data(content, path.parent)

    def base(name: str) -> dict[str, Any]:
        beside = path.parent / name
        return _content(name if name in names() and not _is_file(beside) else str(beside), (*above, place))[0]

    return with_base(content, base), path.stem


def _place_data(content: Mapping[str, Any], folder: Path) -> None:
    """Make `data.root` absolute: a file says it relative to itself, also in its variants, and `--set` to here."""
    variants = content.get("variants")
    for one in (content, *(variants.values() if isinstance(variants, dict) else ())):
        data = one.get("data") if isinstance(one, dict) else None
        if isinstance(data, dict) and isinstance(data.get("root"), str):
            data["root"] = os.path.abspath(folder / Path(data["root"]).expanduser())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise RequestError(
            f"cannot read the recipe {path}: it is not UTF-8 at byte {error.start}; save it so"
        ) from error
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from error


def variants(source: str) -> list[str]:
    """The names of a recipe's variants.

    Raises:
        RequestError: There is no such recipe.
    """
    return list(_choices(_content(parted(source)[0])[0]))


def _choices(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The variants, taken out of a recipe's content."""
    choices = content.pop("variants", None) or {}
    if not isinstance(choices, dict) or not all(isinstance(one, dict) for one in choices.values()):
        raise RequestError(f"variants is a mapping of names to mappings of keys, not {shown(choices)}")
    for name in choices:
        check_name(str(name))
    return choices


def _varied(content: dict[str, Any], choices: dict[str, dict[str, Any]], variant: str) -> dict[str, Any]:
    """The recipe with the keys of a variant in the place of its own."""
    if variant not in choices:
        raise unknown(f"variant of {content['name']}", variant, choices)
    return {**content, **choices[variant], "name": f"{content['name']}:{variant}"}


_BRANCHES = ("Teacher", "list[Teacher]", "StoredOutputs", "str", "list[str]", "float", "dict[str,any]")
"""What pydantic puts into a fault's place for the kinds that a key can hold."""


def _explain(error: ValidationError) -> str:
    fault = max(error.errors(), key=lambda one: len(one["loc"]))  # the deepest branch of a union says most
    path = [str(part) for part in fault["loc"] if part not in _BRANCHES]
    where = ".".join(path) or "recipe"
    if fault["type"] == "extra_forbidden":
        valid = _fields(Recipe, path[:-1])
        close = nearest(path[-1], valid)
        hint = f"did you mean {' or '.join(close)}?" if close else f"valid: {', '.join(valid)}"
        return f"unknown key {shown(where)}; {hint}"
    if fault["type"] == "missing":
        return f"the key {shown(where)} is missing"
    message = expected(fault, EXAMPLES.get(path[-1] if path else "", "{name: value}"))
    place = where if len(where) <= VALUE else shown(where)
    # A whole mapping says nothing of the key in it that is wrong.
    given = "" if isinstance(fault["input"], dict | BaseModel) else f", and it is {shown(fault['input'])}"
    return f"{place}: {message[0].lower()}{message[1:]}{given}"


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """The keys that are valid at a path of the schema."""
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
        model = inner[0] if inner else model
    return list(model.model_fields)
