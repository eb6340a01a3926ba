"""--set: KEY=VALUE replaces what a recipe holds, KEY+=VALUE adds to a list, KEY- removes a key or an element."""

from __future__ import annotations

from typing import Any

from limbeck.errors import RequestError, shown
from limbeck.recipes.document import parse
from limbeck.recipes.inherit import remove, resolved


def override(content: dict[str, Any], text: str) -> None:
    """Change one place of a recipe.

    Args:
        content: The recipe, which is changed.
        text: What `--set` was given; the value is YAML, and numbers in the path count list elements.

    Raises:
        RequestError: It says nothing of the kind, or leads to no place of the recipe.
    """
    path, equals, value = text.partition("=")
    adds, removes = bool(equals) and path.endswith("+"), not equals and path.endswith("-")
    path = path[:-1] if adds or removes else path
    if not path or not (equals or removes):
        raise RequestError(
            f"--set takes key.path=value, key.path+=value to add to a list, or key.path- to remove, not {shown(text)}"
        )
    place, last = _place(content, path)
    if removes and isinstance(place, dict):
        remove(place, last, f"--set {shown(text)}")
    elif removes:
        del place[_position(place, last, path)]
    elif adds:
        _add(place, last, path, _value(text, value))
    else:
        place[_position(place, last, path) if isinstance(place, list) else last] = _value(text, value)


def _value(text: str, value: str) -> Any:
    return resolved(parse(value, f"--set {shown(text)}"))


def _place(content: dict[str, Any], path: str) -> tuple[Any, str]:
    """What holds the last key of a path, and that key."""
    *parents, last = path.split(".")
    place: Any = content
    for key in parents:
        place = place[_position(place, key, path)] if isinstance(place, list) else place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise RequestError(f"--set {shown(path)}: {shown(key)} holds a value, and no keys")
    return place, last


def _add(place: Any, last: str, path: str, value: Any) -> None:
    """Add a value, or the values of a list, behind those of the list that is there, or that begins so."""
    there = place[_position(place, last, path)] if isinstance(place, list) else place.setdefault(last, [])
    if not isinstance(there, list):
        raise RequestError(f"--set {shown(path)}+=: {shown(last)} holds no list to add to; write {path}=VALUE")
    there.extend(value if isinstance(value, list) else [value])


def _position(place: list[Any], key: str, path: str) -> int:
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(place):
        raise RequestError(f"--set {shown(path)}: {shown(key)} is no element of a list of {len(place)}; count from 0")
    return int(key)
