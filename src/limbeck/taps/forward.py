"""Running a model: its inputs, its logits, its mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.taps.names import LOGITS, describe
from limbeck.types import Inputs


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model on one tensor, or on named inputs as keyword arguments."""
    return model(inputs) if isinstance(inputs, Tensor) else model(**inputs)


def logits_of(output: Any) -> Tensor:
    """The logits in a model's output: the tensor itself, or its `logits` attribute or key.

    Raises:
        RequestError: There is none.
    """
    if isinstance(output, Tensor):
        return output
    found = output.get(LOGITS) if isinstance(output, Mapping) else getattr(output, LOGITS, None)
    if isinstance(found, Tensor):
        return found
    raise RequestError(
        f"the model returns no logits but {describe(output)}; return a tensor, or give it a field 'logits'"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of a model in eval mode, and back to the mode that each was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
