"""Running a model: its inputs, its mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from limbeck.taps.wrappers import unwrapped
from limbeck.types import Inputs


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model on one tensor, or on named inputs as keyword arguments; a single one by its position where the model
    has no parameter of its name."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    alone = by_position(unwrapped(model).forward, inputs)
    return model(**inputs) if alone is None else model(alone)


def by_position(function: Callable[..., Any], inputs: Mapping[str, Inputs]) -> Tensor | None:
    """The one tensor of named inputs, where a function takes no such keyword but one argument by position; else None.

    >>> x = torch.zeros(2, 3)
    >>> by_position(lambda image: image, {"pixel_values": x}) is x
    True
    >>> by_position(lambda pixel_values: pixel_values, {"pixel_values": x}) is None
    True
    """
    (name, alone), *others = inputs.items()
    if others or not isinstance(alone, Tensor):
        return None
    try:
        parameters = inspect.signature(function).parameters
        if name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return None
        inspect.signature(function).bind(alone)
    except (TypeError, ValueError):  # it takes more than one, or says nothing of what it takes
        return None
    return alone


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of a model in eval mode, and back to the mode that each was in."""
    training = [module for module in model.modules() if getattr(module, "training", False)]  # frozen scripts have none
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
