"""What a loss takes, by its signature: two tensors, options of the term, and what it is given at each step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from torch import Tensor, nn

from limbeck.distillers.by_epoch import ByEpoch
from limbeck.errors import RequestError, unknown
from limbeck.types import Batch, send

FROM_BATCH: Mapping[str, Callable[[Batch], Tensor]] = {
    "targets": lambda batch: batch.targets,
    "index": lambda batch: send(batch.index, batch.device),
}
"""What a loss gets of the batch where it has a parameter of this name."""
TOKENS = "tokens"
"""Likewise: where the tensors that it compares hold tokens and no padding, which is zero in both."""
GIVEN = (*FROM_BATCH, "term_weight", "epoch", TOKENS)
_OF_TERM = {"weight", "student", "teacher", "adapter", "name"}


class Made(Protocol):
    """A class of losses with state, which are made once the shapes of their tensors are known."""

    def for_shapes(self, student: Any, teacher: Any, **options: Any) -> nn.Module:
        """A loss for tensors, or tuples of tensors, of these shapes."""


def check_options(loss: Callable[..., Any], options: Mapping[str, Any], name: str) -> None:
    """Raise RequestError for options that a loss does not take, or lacks, and for what is no loss."""
    if not callable(loss):
        raise RequestError(f"a loss is a function, a module or a class with for_shapes, not {loss!r}")
    made = made_by(loss)
    if isinstance(loss, type) and made is None:
        raise RequestError(f"class {name} has no for_shapes(student, teacher, **options); give a module made from it")
    if made is not None and any(isinstance(one, ByEpoch) for one in options.values()):
        raise RequestError(f"{name} takes its options once, when it is made; only its weight can follow a schedule")
    maker = loss if made is None or _takes_any(made.for_shapes) else made.for_shapes
    if _takes_any(maker):
        return
    known = keywords(maker)
    valid = known - set(GIVEN)
    for option in options:
        if option not in valid:
            raise unknown(f"option of loss {name}", option, valid | _OF_TERM)
    if maker is not loss or not isinstance(loss, type):
        try:
            _signature(maker).bind(None, None, **options, **dict.fromkeys(known & set(GIVEN)))
        except TypeError as error:
            raise RequestError(f"loss {name}: {error}; it is called as {name}(student, teacher, **options)") from None


def defaults(loss: Callable[..., Any]) -> dict[str, Any]:
    """What a loss, or what makes it, takes where an option is left out; `inspect.Parameter.empty` of the others."""
    made = made_by(loss)
    return {one.name: one.default for one in _signature(loss if made is None else made.for_shapes).parameters.values()}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _signature(function).parameters.values())


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # torch's own functions in C++ do not tell theirs
        return inspect.signature(lambda student, teacher, **options: None)


def made_by(loss: Any) -> Made | None:
    """The class that a loss is made by once shapes are known; None of a loss that is there already."""
    return loss if isinstance(loss, type) and hasattr(loss, "for_shapes") else None


def keywords(loss: Callable[..., Any]) -> frozenset[str]:
    """The keyword options of a loss: what follows its two tensors."""
    function = loss.forward if isinstance(loss, nn.Module) else loss
    # A method is a new object at each look, and keeps its module alive; the function behind it is one for all.
    behind = getattr(function, "__func__", None)
    return _options(function, 2) if behind is None else _options(behind, 3)


@lru_cache(maxsize=256)
def _options(function: Callable[..., Any], tensors: int) -> frozenset[str]:
    parameters = list(_signature(function).parameters.values())
    return frozenset(p.name for p in parameters[tensors:] if p.kind is not p.VAR_KEYWORD)
