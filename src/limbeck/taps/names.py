"""Tap names, parsed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError

LOGITS = "logits"


@dataclass(frozen=True)
class Tap:
    """One parsed tap name.

    Attributes:
        name: As it was written.
        path: The path, in its model, of a module, or of an operation in a module's forward.
        side: "in" for its input, "out" for its output.
        element: Which element of a tuple (int) or mapping (str), or None for a plain tensor.
        model: Whose it is, for errors, such as "the student (ResNet)".
    """

    name: str
    path: str
    side: str
    element: int | str | None
    model: str

    @classmethod
    def parse(cls, name: str, model: str) -> Tap:
        """Read a tap name; raise RequestError where it has too many parts."""
        path, *rest = name.split(":")
        side = "out"
        if rest and rest[0] == "in":
            side = rest.pop(0)
        if len(rest) > 1:
            raise RequestError(
                f"tap {name!r} is not of the form module, module:in, module:ELEMENT or module:in:ELEMENT"
            )
        element = int(rest[0]) if rest and rest[0].isdigit() else rest[0] if rest else None
        return cls(name, path, side, element, model)

    def read(self, value: Any) -> Tensor:
        """The tensor that this tap names in what its module was given or has returned."""
        if self.side == "in" and self.element is None:
            inputs = [*(value.values() if isinstance(value, Mapping) else value)]
            value = inputs[0] if inputs else None  # next() has no default where older torch compiles a hook
        elif self.element is not None:
            try:
                value = value[self.element]
            except (KeyError, IndexError, TypeError):
                raise RequestError(f"{self}: no element {self.element!r} in {describe(value)}") from None
        if not isinstance(value, Tensor):
            raise RequestError(f"{self} names no tensor but {describe(value)}")
        return value

    def __str__(self) -> str:
        return f"tap {self.name!r} of {self.model}"


def describe(value: Any) -> str:
    """What a value is that should have been a tensor, for an error."""
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} elements"
    parts = f" of {', '.join(field.name for field in fields(value))}" if is_dataclass(value) else ""
    return f"a value of type {type(value).__name__}{parts}"
