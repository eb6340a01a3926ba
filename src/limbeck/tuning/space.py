"""What is searched: for dotted keys of a recipe, as --set takes them, a range of numbers or a list of choices.

    optimizer.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
    distill.terms.*.temperature: {choices: [1, 2, 4]}
    kd:                                   # keys that one contender has for itself
      distill.task_weight: {low: 0, high: 1}

`*` stands for every element of a list. A key under `distill` is searched for students with a teacher alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import RequestError, shown, unknown

ROOTS = ("optimizer", "schedule", "distill", "student", "accumulate_steps", "max_grad_norm", "early_stopping")
"""The keys of a recipe below which everything can be searched."""
DATA = ("data.augment", "data.batch_size", "data.drop_last", "data.sampling", "data.views")
"""Those of `data`: the others say which samples there are, and are the same for all trials."""
DIGITS = 3
"""Significant digits of a value from a range."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; with `log` drawn by their logarithm, with `step` in such steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> list[Any]:
        """The values by which a range is tried out."""
        return [self.low, self.high]

    def has(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def as_its_own(self, value: Any) -> Any:
        """A value as the range has it."""
        return value

    def rounded(self, value: float) -> float:
        """A drawn value with few digits, within the range; one on steps as it is."""
        if self.step is not None:
            return value
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def as_dict(self) -> dict[str, Any]:
        """As a file of a space has it."""
        more = {"log": True} if self.log else {}
        return {"low": self.low, "high": self.high, **more, **({} if self.step is None else {"step": self.step})}


@dataclass(frozen=True)
class Choices:
    """Some values, each of anything that a recipe can hold."""

    choices: Sequence[Any]

    @property
    def ends(self) -> list[Any]:
        """The values by which they are tried out: all."""
        return list(self.choices)

    def has(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.choices

    def as_its_own(self, value: Any) -> Any:
        """The choice that is equal to a value, such as 0.0 to 0."""
        return next(one for one in self.choices if one == value)

    def as_dict(self) -> dict[str, Any]:
        """As a file of a space has it."""
        return {"choices": list(self.choices)}


Domain = Range | Choices
Space = dict[str, Domain]


@dataclass(frozen=True)
class GivenSpace:
    """What a file of a space says.

    Attributes:
        shared: By key, for every contender; None takes the key out of the search.
        own: By contender, then by key.
    """

    shared: Mapping[str, Domain | None]
    own: Mapping[str, Mapping[str, Domain | None]]

    def over(self, default: Space, contender: str, taught: bool) -> Space:
        """A contender's space: the default one, with what the file says in its place."""
        shared = {key: one for key, one in self.shared.items() if taught or key.partition(".")[0] != "distill"}
        merged = {**default, **shared, **self.own.get(contender, {})}
        return {key: one for key, one in merged.items() if one is not None}


NOTHING = GivenSpace({}, {})


def read_space(content: Any, what: str, contenders: Sequence[str]) -> GivenSpace:
    """A space from a file's content.

    Args:
        content: Keys with {low, high, log, step}, {choices}, or null, which takes a default key out; and contenders
            with keys of their own.
        what: The file, for errors.
        contenders: Their names.

    Raises:
        RequestError: A key that cannot be searched, an empty range, no choices.
    """
    if not isinstance(content, Mapping) or not content:
        raise RequestError(f"{what} must map keys such as optimizer.lr to {{low, high, log}} or {{choices: [...]}}")
    shared: dict[str, Domain | None] = {}
    own: dict[str, dict[str, Domain | None]] = {}
    for key, value in content.items():
        if key in contenders:
            if not isinstance(value, Mapping):
                raise RequestError(f"{what}: under {key} stand its keys, not {shown(value)}")
            own[key] = {str(inner): _domain(str(inner), one, what, ()) for inner, one in value.items()}
        else:
            shared[str(key)] = _domain(str(key), value, what, contenders)
    return GivenSpace(shared, own)


def as_content(spaces: Mapping[str, Space]) -> dict[str, Any]:
    """The contenders' spaces as a file has them, which `read_space` reads back."""
    return {name: {key: one.as_dict() for key, one in space.items()} for name, space in spaces.items()}


def check_keys(space: Space, contender: str) -> None:
    """Raise RequestError for two keys of which one lies within the other: the second would undo the first."""
    for key in space:
        for other in space:
            if key != other and _within(key.split("."), other.split(".")):
                raise RequestError(f"the space of {contender}: {key} lies within {other}; search one of them")


def _within(path: Sequence[str], other: Sequence[str]) -> bool:
    pairs = zip(path, other, strict=False)
    return len(path) >= len(other) and all(a == b or (a, b).count("*") for a, b in pairs)


def _domain(key: str, value: Any, what: str, contenders: Sequence[str]) -> Domain | None:
    _check_key(key, what, contenders)
    if value is None:
        return None
    if isinstance(value, Mapping) and set(value) == {"choices"}:
        return _choices(key, value["choices"], what)
    if isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "log", "step"}:
        return _range(key, value, what)
    given = ", ".join(map(str, value)) if isinstance(value, Mapping) else shown(value)
    raise RequestError(
        f"{what}: {key} takes {{low, high}}, with log: true or a step, or {{choices: [...]}}, not {given}"
    )


def _check_key(key: str, what: str, contenders: Sequence[str]) -> None:
    root, _, rest = key.partition(".")
    if root in ROOTS and not (root == "student" and rest.partition(".")[0] == "weights"):
        return
    if any(key == one or key.startswith(f"{one}.") for one in DATA):
        return
    if root in ("epochs", "teacher", "seed", "data", "name", "task", "ensemble", "assistants", "student"):
        raise RequestError(
            f"{what}: {key} is the same for all trials, whose budgets and samples are equal; what can be searched: "
            f"{', '.join((*ROOTS, *DATA))}"
        )
    raise RequestError(f"{what}: {unknown('key', key, [*ROOTS, 'optimizer.lr', *DATA, *contenders])}")


def _choices(key: str, given: Any, what: str) -> Choices:
    if not isinstance(given, list) or not given:
        raise RequestError(f"{what}: {key} has no choices; give a list of one or more, such as {{choices: [1, 2, 4]}}")
    if any(one in given[:place] for place, one in enumerate(given)):
        raise RequestError(f"{what}: {key} has a choice twice; leave one out")
    return Choices(tuple(given))


def _range(key: str, given: Mapping[str, Any], what: str) -> Range:
    for name in ("low", "high", *(["step"] if "step" in given else [])):
        one = given[name]
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            raise RequestError(f"{what}: {name} of {key} is a number, not {shown(one)}")
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise RequestError(f"{what}: log of {key} is true or false, not {shown(log)}")
    if low > high:
        raise RequestError(f"{what}: {key} has low {low:g} above high {high:g}; exchange them")
    if low == high:
        raise RequestError(f"{what}: the range of {key} is empty, low and high are {low:g}; set the key in the recipe")
    if log and low <= 0:
        raise RequestError(
            f"{what}: {key} has low {low:g}, which has no logarithm; give a low above 0, or leave log out"
        )
    if step is not None and (log or not 0 < step <= high - low):
        raise RequestError(f"{what}: step of {key} is above 0, at most high − low, and does not go with log: true")
    return Range(low, high, log, step)
