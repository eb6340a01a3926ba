"""Which part of what a teacher returns is its output, where its student's task says it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.taps import Choice, logits_of
from limbeck.tasks import Task


def chosen_by(task: Task, classes: int | None = None) -> Choice:
    """The part that a task takes for the output, and the logits of a teacher without such a part.

    Args:
        task: What the student learns.
        classes: How many its logits are, where that is known.

    Returns:
        None where the task says nothing: then the output is found as of any teacher.
    """
    own = not type(task).__module__.startswith("limbeck.")
    if task.choice is None and not own:
        return None
    return partial(_output, task.output, task.choice, classes, vars(task) if own else None)


def _output(
    find: Callable[[Any, int | None], Tensor], choice: Choice, classes: int | None, settings: Any, returned: Any
) -> Tensor:
    """What `find` takes for the output; `settings` are those that it may read, by which stored outputs are told apart.

    Raises:
        RequestError: There is no output.
    """
    try:
        return find(returned, classes)
    except RequestError:
        if choice is None:
            raise
        return logits_of(returned, classes)
