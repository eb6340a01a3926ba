"""Options by name: known to the signature of what takes them, and of the types that it declares."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, TypeGuard

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from limbeck.errors import RequestError, shown, unknown

Width = Annotated[int, Field(ge=1)]
"""Channels, units or layers of a network, or a stride."""
Factor = Annotated[float, Field(gt=0)]
"""What widths are multiplied by."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability."""

_WANTED = {
    "float_type": "a number, such as 0.5",
    "float_parsing": "a number, such as 0.5",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, such as [a, b]",
    "tuple_type": "a list, such as [a, b]",
}
"""What to write, by the kind of pydantic's error."""
_DECLARE = ("limbeck.", "torch.optim.")
"""Whose annotations are true; other people's say at times less than their functions take."""


def is_whole(value: object, least: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number, of the least or more, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number, and not true or false."""
    return isinstance(value, Real) and not isinstance(value, bool)  # NumPy's too


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list, a tuple or another sequence, and not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def fitting(
    what: str,
    maker: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    given: Collection[str] = (),
    more: Collection[str] = (),
) -> dict[str, Any]:
    """The options, with values of the types that `maker` declares.

    Args:
        what: What takes them, for the error: "model mlp".
        maker: The function or class that is called with them.
        options: Names and values as a recipe holds them.
        given: Parameters of it that the caller fills.
        more: Names to offer besides, which the caller takes himself.

    Raises:
        RequestError: An option that it does not take, or a value of another type.
    """
    parameters = inspect.signature(maker).parameters
    taken = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    any_name = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for option in options:
        if option in given or (option not in taken and not any_name):
            raise unknown(f"option of {what}", option, {*taken, *more} - {*given})
    return values(what, maker, options)


def values(what: str, maker: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with values of the types that `maker` declares; its other options stay as they are.

    Raises:
        RequestError: A value of another type.
    """
    declared = _declared(maker)
    return {name: _value(what, name, value, declared.get(name, Any)) for name, value in options.items()}


def _value(what: str, name: str, value: Any, declared: Any) -> Any:
    if declared is Any:
        return value
    if _has_truth(value) and not _takes_truth(declared):
        raise RequestError(
            f"option {name} of {what}: {shown(value)} holds true or false (yes or no) in a number's place"
        )
    try:
        return TypeAdapter(
            declared, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        ).validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        raise RequestError(f"option {name} of {what} is {shown(value)}: {expected(fault)}") from error


def expected(fault: Mapping[str, Any], mapping: str = "{name: value}") -> str:
    """What one of pydantic's errors asks for, in words of a recipe and not of Python.

    Args:
        fault: The error.
        mapping: What a mapping looks like in its place.
    """
    kind = fault["type"]
    if kind in _WANTED:
        return f"write {_WANTED[kind]}"
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return f"write a mapping, such as {mapping}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _declared(maker: Callable[..., Any]) -> dict[str, Any]:
    if not f"{getattr(maker, '__module__', '')}.".startswith(_DECLARE):
        return {}
    try:
        return typing.get_type_hints(maker.__init__ if isinstance(maker, type) else maker, include_extras=True)  # type: ignore[misc]
    except Exception:  # a type that is there for the checker alone
        return {}


def _has_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_has_truth, value)))


def _takes_truth(declared: Any) -> bool:
    return declared in (bool, object) or any(map(_takes_truth, typing.get_args(declared)))
