"""Running a model: its inputs, its logits, its mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.taps.names import LOGITS, describe
from limbeck.taps.wrappers import unwrapped
from limbeck.types import Inputs

Choice = str | int | Callable[[Any], Any] | None
"""Which part of what a model returns is its output: a field's name, a position, a function; None finds it."""
_SAY = (
    "output='NAME', as in task=Classification(output='NAME') for a student, ModuleTeacher(teacher, output='NAME'); in "
    "a recipe output: NAME of the student or teacher"
)


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


def logits_of(output: Any, classes: int | None = None) -> Tensor:
    """The logits in a model's output: the tensor itself, its `logits` attribute or key, or a tensor of a tuple.

    Args:
        output: What the model returned.
        classes: Of a tuple the first tensor (B, classes) is taken; the first (B, ...) where there is none, or None.

    Raises:
        RequestError: There is none.
    """
    if isinstance(output, Tensor):
        return output
    found = output.get(LOGITS) if isinstance(output, Mapping) else getattr(output, LOGITS, None)
    if isinstance(found, Tensor):
        return found
    if found is None and isinstance(output, tuple | list):
        tensors = [one for one in output if isinstance(one, Tensor) and one.dim() > 1]
        fitting = [one for one in tensors if one.dim() == 2 and one.shape[1] == classes]
        if tensors:
            return (fitting or tensors)[0]
    raise RequestError(
        f"the model returns no logits but {describe(output)}; return a tensor or a field 'logits', or say which part "
        f"is meant: {_SAY}"
    )


def output_of(returned: Any, choice: Choice = None, classes: int | None = None) -> Tensor:
    """The output in what a model returned: a tensor itself, else the part that was chosen, else its logits.

    Args:
        returned: What the model returned.
        choice: Which part is meant; None takes what `logits_of` finds.
        classes: See there.

    Raises:
        RequestError: There is no such part, or it is no tensor.
    """
    if choice is None or isinstance(returned, Tensor):
        return logits_of(returned, classes)
    try:
        if callable(choice):
            found = choice(returned)
        elif isinstance(choice, str) and not isinstance(returned, Mapping):
            found = getattr(returned, choice)
        else:
            found = returned[choice]
    except RequestError:
        raise
    except Exception as error:  # the function may be anybody's
        raise RequestError(
            f"the model returns {describe(returned)}, which has no output {choice!r}; say which part is meant: {_SAY}"
        ) from error
    if not isinstance(found, Tensor):
        raise RequestError(f"output {choice!r} of the model is {type(found).__name__}, not a tensor")
    return found


def taken_from(output: Any, logits: Tensor | None) -> str | None:
    """What `logits_of` took the logits from, where that was a choice: "returns a tuple …", else None."""
    if logits is None or not isinstance(output, tuple | list) or hasattr(output, LOGITS):
        return None
    place = next((place for place, one in enumerate(output) if one is logits), 0)
    return f"returns {describe(output)}; element {place}, of shape {tuple(logits.shape)}, is taken as its logits"


def heads_of(output: Any) -> tuple[Tensor, Tensor] | None:
    """The logits of two heads, where a model returns a pair of one shape (B, C); else None."""
    if not isinstance(output, tuple | list) or len(output) != 2:
        return None
    first, second = output
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    return (first, second) if first.dim() == 2 and first.shape == second.shape else None


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
