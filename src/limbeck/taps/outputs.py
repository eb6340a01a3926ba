"""What a model returned: which part of it is its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError, reason_of, shown
from limbeck.taps.names import LOGITS, describe

Choice = str | int | Callable[[Any], Any] | None
"""Which part of what a model returns is its output: a field's name, a position, a function; None finds it."""
_SAY = {
    "model": "output='NAME'",
    "student": "task=Classification(output='NAME'), in a recipe student.output: NAME",
    "teacher": "ModuleTeacher(teacher, output='NAME'), in a recipe teacher.output: NAME",
}
"""How is said which output is meant, by the model."""


class NoOutputError(RequestError):
    """A model returned something in which there is no output.

    Args:
        reason: What it returned, as in "returns None".
        model: Which one it is, where that is known: "student" or "teacher".
    """

    def __init__(self, reason: str, model: str = "model") -> None:
        super().__init__(f"the {model} {reason}; say which part is its output: {_SAY[model]}")
        self.reason = reason

    def of(self, model: str) -> NoOutputError:
        """The same of a model that is known."""
        return NoOutputError(self.reason, model)


def check_choice(output: object) -> None:
    """Raise RequestError for what says of no output that it is meant."""
    named = isinstance(output, str | int) and not isinstance(output, bool)
    if output is not None and not named and not callable(output):
        raise RequestError(f"output is a field's name, a position or a function, not {shown(output)}")


def logits_of(output: Any, classes: int | None = None) -> Tensor:
    """The logits in a model's output: the tensor itself, its `logits` attribute or key, or a tensor of a tuple.

    Args:
        output: What the model returned.
        classes: Of a tuple the first tensor (B, classes) is taken; the first (B, ...) where there is none, or None.

    Raises:
        NoOutputError: There is none.
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
    raise NoOutputError(f"returns no logits but {describe(output)}")


def output_of(returned: Any, choice: Choice = None, classes: int | None = None) -> Tensor:
    """The output in what a model returned: a tensor itself, else the part that was chosen, else its logits.

    Args:
        returned: What the model returned.
        choice: Which part is meant; None takes what `logits_of` finds.
        classes: See there.

    Raises:
        NoOutputError: There is no such part, or it is no tensor.
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
        lacks = f"has no output {choice!r}"
        if callable(choice):
            lacks = f"the function output= does not take ({type(error).__name__}: {reason_of(error)})"
        raise NoOutputError(f"returns {describe(returned)}, which {lacks}") from error
    if not isinstance(found, Tensor):
        what = "what the function output= takes" if callable(choice) else repr(choice)
        raise NoOutputError(f"returns {describe(returned)}, of which {what} is {describe(found)} and no tensor")
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
