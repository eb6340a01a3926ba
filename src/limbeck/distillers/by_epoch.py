"""Numbers that follow a schedule by epoch: a term's weight, or an option of its loss such as a temperature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from limbeck.errors import RequestError, shown, unknown


@dataclass(frozen=True)
class ByEpoch:
    """A number by epoch.

    Attributes:
        value: The number in an epoch (from 0).
        described: How it reads in logs.
    """

    value: Callable[[int], float] = field(compare=False, repr=False)
    described: str

    def __call__(self, epoch: int) -> float:
        return self.value(epoch)

    def __repr__(self) -> str:
        return self.described


def constant(value: float) -> ByEpoch:
    """The same in all epochs."""
    return ByEpoch(lambda epoch: value, f"{value:g}")


def linear(start: float, end: float, epochs: int) -> ByEpoch:
    """From `start` in the first epoch along a line to `end` in epoch number `epochs`, which stays.

    >>> [linear(0, 1, 5)(epoch) for epoch in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    _check_epochs(epochs)
    return ByEpoch(lambda epoch: start + (end - start) * _share(epoch, epochs), f"linear {start:g} → {end:g}")


def cosine(start: float, end: float, epochs: int) -> ByEpoch:
    """From `start` in the first epoch along half a cosine to `end` in epoch number `epochs`, which stays.

    >>> [round(cosine(8, 2, 3)(epoch), 6) for epoch in range(4)]
    [8.0, 5.0, 2.0, 2.0]
    """
    _check_epochs(epochs)

    def value(epoch: int) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * _share(epoch, epochs))) / 2

    return ByEpoch(value, f"cosine {start:g} → {end:g}")


def step(start: float, milestones: Sequence[float], factor: float = 0.1) -> ByEpoch:
    """`start`, multiplied by `factor` after so many epochs as each milestone says.

    >>> [step(4, [2, 3], 0.5)(epoch) for epoch in range(4)]
    [4.0, 4.0, 2.0, 1.0]
    """
    if not factor > 0:
        raise RequestError(f"the factor of a schedule by epoch must be above 0, not {shown(factor)}")
    at = list(milestones)
    return ByEpoch(
        lambda epoch: start * factor ** sum(epoch >= one for one in at), f"step {start:g} × {factor:g} at {at}"
    )


Shape = Literal["linear", "exponential"]
"""How a weight grows."""


def ramp(epochs: int, weight: float = 1.0, shape: Shape = "linear") -> Callable[[int], float]:
    """A weight that grows from epoch to epoch, and stays where it has reached `weight`.

    Args:
        epochs: Linearly from weight/epochs in the first epoch to `weight` in epoch number `epochs`; exponentially to
            `weight` after so many epochs.
        weight: What is reached.
        shape: "linear", or "exponential" for weight · exp(−5 (1 − x)²), x the share of the epochs that are over
            (arXiv:1610.02242, 1703.01780).

    Raises:
        RequestError: Another shape.

    >>> [ramp(4, 8.0)(epoch) for epoch in range(6)]
    [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    >>> [round(ramp(4, 8.0, "exponential")(epoch), 2) for epoch in range(6)]
    [0.05, 0.48, 2.29, 5.85, 8.0, 8.0]
    """
    if shape not in get_args(Shape):
        raise unknown("shape of a ramp", shape, get_args(Shape))
    if shape == "linear":
        return lambda epoch: weight * min((epoch + 1) / epochs, 1.0)
    return lambda epoch: weight * math.exp(-5 * (1 - min(epoch / epochs, 1.0)) ** 2)


_TAKES: Mapping[str, Mapping[str, bool]] = {
    "constant": {"from": True},
    "linear": {"from": True, "to": True, "epochs": True},
    "cosine": {"from": True, "to": True, "epochs": True},
    "step": {"from": True, "milestones": True, "factor": False},
}
"""The keys of each schedule, and whether it must have them."""
_MAKERS: Mapping[str, Callable[..., ByEpoch]] = {"constant": constant, "linear": linear, "cosine": cosine, "step": step}
_EXAMPLE = "{name: linear, from: 0, to: 1, epochs: 10}"


def is_schedule(value: Any) -> bool:
    """Whether a recipe's value is meant as a schedule: a mapping with a name and a first value."""
    return isinstance(value, Mapping) and {"name", "from"} <= value.keys()


def by_epoch(given: Mapping[str, Any]) -> ByEpoch:
    """A schedule as a recipe gives it, such as {name: linear, from: 0, to: 1, epochs: 10}.

    Args:
        given: `name` is constant, linear, cosine or step; `from` its first value; `to` its last one, reached in epoch
            number `epochs`; `milestones` the numbers of epochs after which step multiplies by `factor`, 0.1.

    Raises:
        RequestError: An unknown name or key, a key that is missing, or a value that is no number.
    """
    name = given.get("name")
    if name not in _MAKERS:
        raise unknown("schedule by epoch", name, _MAKERS)
    takes, options = _TAKES[str(name)], {key: value for key, value in given.items() if key != "name"}
    for key in options:
        if key not in takes:
            raise unknown(f"key of schedule {name}", key, ["name", *takes])
    missing = [key for key, needed in takes.items() if needed and key not in options]
    if missing:
        raise RequestError(f"schedule {name} lacks {', '.join(missing)}; write it as in {_EXAMPLE}")
    for key, value in options.items():
        _check_number(f"{key} of schedule {name}", value, several=key == "milestones", whole=key == "epochs")
    first = "value" if name == "constant" else "start"
    renamed = {{"from": first, "to": "end"}.get(key, key): value for key, value in options.items()}
    return _MAKERS[str(name)](**renamed)


def _check_number(what: str, value: Any, *, several: bool, whole: bool) -> None:
    if several:
        if not isinstance(value, list) or not value:
            raise RequestError(f"{what} is a list of epochs, such as [10, 15], not {shown(value)}")
        for one in value:
            _check_number(what, one, several=False, whole=False)
        return
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not abs(value) < 1e12:
        raise RequestError(f"{what} is a {'whole ' if whole else ''}number, not {shown(value)}")


def _check_epochs(epochs: int) -> None:
    if not epochs >= 1:
        raise RequestError(f"a schedule by epoch takes 1 or more epochs, not {shown(epochs)}")


def _share(epoch: int, epochs: int) -> float:
    """How much of the way is done in an epoch (from 0)."""
    return 1.0 if epochs == 1 else min(epoch / (epochs - 1), 1.0)
