"""Which of a foreign model's outputs holds the logits: the one that is named, or the only one that can be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from limbeck.errors import RequestError, unknown
from limbeck.taps import LOGITS


@runtime_checkable
class Chooses(Protocol):
    """A model that may have several outputs that could be logits."""

    def choose_logits(self, classes: int | None) -> None:
        """Take the one of this many classes, where nobody has chosen."""


Shape = Sequence[Any]
"""A tensor's shape, with the batch; sizes that are not known are no int."""


@dataclass(frozen=True)
class Outputs:
    """What a model gives, and what of it could be logits.

    Attributes:
        model: The model, for errors.
        shapes: The shape of each output of real numbers, by name.
        others: What the rest are, by name, in words.
    """

    model: str
    shapes: Mapping[str, Shape]
    others: Mapping[str, str]

    @property
    def candidates(self) -> list[str]:
        """The outputs that could be logits by their shape; those of width 1 where there is no other."""
        fits = [name for name, shape in self.shapes.items() if _width(shape) is not None or _is_open(shape)]
        wide = [name for name in fits if _width(self.shapes[name]) != 1]
        sure = [name for name in wide if not _is_open(self.shapes[name])]
        return sure or wide or fits

    def chosen(self, classes: int | None) -> str | None:
        """The one that holds the logits; None where several could, and the number of classes is not known.

        Raises:
            RequestError: None can hold them, or several with this number of classes.
        """
        found = self.candidates
        if not found:
            raise RequestError(
                f"{self.model} has no output of real numbers and shape (B, C) that could be logits, but {self}; name "
                "a tensor of it: logits='NAME'"
            )
        if LOGITS in found or len(found) == 1:
            return LOGITS if LOGITS in found else found[0]
        if classes is None:
            return None
        fitting = [name for name in found if _width(self.shapes[name]) == classes]
        if len(fitting) == 1:
            return fitting[0]
        raise self.several(f", for {classes} classes")

    def several(self, more: str = "") -> RequestError:
        """The error where nobody can know which one is meant."""
        return RequestError(
            f"{self.model} has several outputs that could be logits{more}: {self}; name one: logits='NAME'"
        )

    def named(self, name: str) -> str:
        """The output of this name.

        Raises:
            RequestError: There is none, or it holds no real numbers.
        """
        if name in self.others:
            raise RequestError(f"output {name} of {self.model} {self.others[name]}; there are {self}")
        if name not in self.shapes:
            raise unknown(f"output of {self.model}", name, [*self.shapes, *self.others])
        return name

    def __str__(self) -> str:
        shapes = [f"{name} {_shown(shape)}" for name, shape in self.shapes.items()]
        return ", ".join([*shapes, *(f"{name} (which {what})" for name, what in self.others.items())])


def flattened(logits: Tensor) -> Tensor:
    """(B, C) for (B, C, 1, 1), as global pooling leaves scores, and the like; others as they are."""
    rest = logits.shape[1:]
    return logits.flatten(1) if len(rest) > 1 and logits.numel() and math.prod(rest) == max(rest) else logits


def choose_logits(model: nn.Module, classes: int | None) -> None:
    """Have a model with several outputs that could be logits take the one of this many classes.

    Raises:
        RequestError: None of them has so many, or several.
    """
    if isinstance(model, Chooses):
        model.choose_logits(classes)


def _width(shape: Shape) -> int | None:
    """C of a shape (B, C), or (B, C, 1, 1) in any order; 0 where it is (B, C) with an unknown C, None for others."""
    rest = [size if type(size) is int else 0 for size in shape[1:]]
    if len(rest) < 2:
        return rest[0] if rest else None
    return max(rest) if math.prod(rest) == max(rest) > 0 else None


def _is_open(shape: Shape) -> bool:
    """Whether nothing of a shape is known, or it is (B, C, …) with sizes that may be 1."""
    return not shape or (len(shape) > 2 and all(type(size) is not int or size in (0, 1) for size in shape[2:]))


def _shown(shape: Shape) -> str:
    return f"({', '.join(['B', *map(str, shape[1:])])})" if shape else "of an unknown shape"
