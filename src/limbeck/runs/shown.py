"""A recipe as commented YAML, with the meaning of every key from the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from limbeck.recipes.keys import one_line, plain
from limbeck.recipes.methods import Places
from limbeck.recipes.schema import Recipe
from limbeck.recipes.schema.meanings import of_keys
from limbeck.runs.written_out import declared


class _NetworksNeededError(Exception):
    """A method's terms depend on its networks."""


def as_yaml(recipe: Recipe, *, defaults: bool = True) -> str:
    """The recipe as YAML that reads as the same recipe; comments mark the defaults and give each key's meaning.

    Args:
        recipe: What is shown.
        defaults: Show also the keys that are not given.
    """
    lines = list(_mapping(recipe, "", defaults))
    return "\n".join([*lines, *(f"# {line}".rstrip() for line in _method(recipe))]) + "\n"


def _mapping(model: BaseModel, indent: str, defaults: bool) -> Iterator[str]:
    meanings = of_keys(type(model))
    for name in type(model).model_fields:
        given = name in model.model_fields_set
        if given or defaults:
            comment = one_line(f"{'' if given else 'default. '}{meanings.get(name, '')}")
            yield from _entry(name, getattr(model, name), indent, f"  # {comment}", defaults)
    for name, value in (model.model_extra or {}).items():
        yield from _entry(name, value, indent, "", defaults)


def _entry(name: str, value: Any, indent: str, comment: str, defaults: bool) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield f"{indent}{name}:{comment}"
        yield from _mapping(value, f"{indent}  ", defaults)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        yield f"{indent}{name}:{comment}"
        for one in value:
            first, *rest = _mapping(one, f"{indent}    ", defaults)
            yield from (f"{indent}  - {first.lstrip()}", *rest)
    else:
        yield f"{indent}{plain(name)}: {plain(value)}{comment}"


def _method(recipe: Recipe) -> list[str]:
    """The terms that a method stands for, where they are the same for all networks."""
    method = recipe.distill.method
    if method is None:
        return []
    try:
        written, stages = declared(recipe, _no_networks)
    except _NetworksNeededError:
        return [f"The terms of the method {method} depend on the two networks."]
    distill = written.distill
    terms = [f"- {plain(term.model_dump(mode='json', exclude_unset=True))}" for term in distill.terms]
    more = [f"Before it: {len(stages)} training stages of the method."] if stages else []
    return [f"The method {method} stands for task_weight: {distill.task_weight:g} and the terms:", *terms, *more]


class _Unknown:
    def __getattr__(self, name: str) -> Any:
        raise _NetworksNeededError


def _no_networks() -> Places:
    unknown_places: Any = _Unknown()
    return unknown_places  # type: ignore[no-any-return]
