"""Adding seeds until verdicts are decided, with a correction for looking at them repeatedly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.compare.labels import label_of
from limbeck.errors import RequestError, as_request, counted
from limbeck.runs.folder import COMPARISON

FILE = "until.json"
GROWTH = 1.5
"""From one look to the next the seeds grow by about this factor."""


@dataclass(frozen=True)
class Plan:
    """When verdicts are looked at, and what part of the allowed error each look may spend.

    The looks are at n₁ < n₂ < … < n_K = most seeds. Look k spends the part (n_k − n_{k−1}) / most of the error: the
    spending function is linear in the seeds. The parts sum to 1, so by Bonferroni's inequality the intervals of all
    looks hold together, whatever their dependence, and a method may stop at any of them. No normal approximation over
    looks is needed, which with three seeds would not be good.

    Args:
        first: Seeds at the first look, 2 or more.
        most: Seeds at the last one.

    Source: Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 1983 (spending functions);
    Jennison and Turnbull, "Interim analyses: the repeated confidence interval approach", JRSS B 1989.

    Raises:
        RequestError: A first look that has no spread, or a last one before it.

    >>> Plan(3, 20).looks
    (3, 5, 8, 13, 20)
    >>> Plan(3, 20).share(5)
    0.1
    """

    first: int
    most: int

    def __post_init__(self) -> None:
        if self.first < 2:
            raise RequestError("one seed shows nothing, so seeds are added to two or more: --seeds 2")
        if self.most < self.first:
            raise RequestError(f"--max-seeds {self.most} is less than the {self.first} seeds to begin with")

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds at which verdicts are looked at; they are counted back from the last."""
        found = [self.most]
        while int(found[0] / GROWTH) > self.first:
            found.insert(0, int(found[0] / GROWTH))
        return (self.first, *found) if self.most > self.first else (self.first,)

    def share(self, pairs: int) -> float:
        """The part of the error that an interval from so many pairs may use."""
        before = 0
        for look in self.looks:
            if pairs <= look or look == self.most:
                return (look - before) / self.most
            before = look
        raise AssertionError  # the last look returns

    def as_dict(self) -> dict[str, Any]:
        """What compare.json says of it."""
        return {"first_seeds": self.first, "max_seeds": self.most, "looks": list(self.looks)}


def check_same(folder: Path, plan: Plan | None) -> None:
    """Refuse to resume a comparison with another plan than the one that it began with.

    A finished comparison of fixed length has had its look, which may use all of the error. One that was interrupted
    before its table has had none, and may begin with a plan.

    Raises:
        RequestError: The allowed error is shared out otherwise, or would be spent twice.
    """
    path = folder / FILE
    if not path.exists():
        if plan is not None and (folder / COMPARISON).exists():
            raise RequestError(
                f"the table of {folder} was made without --until decided and has used all of the 5 % of error, so "
                "further looks would find differences that are not there; leave --until and --max-seeds out, or begin "
                "a new comparison in another --out"
            )
        return
    with as_request(lambda reason: f"{path} is damaged ({reason}); choose another --out"):
        before = json.loads(path.read_text(encoding="utf-8"))
        again = f"--until decided --seeds {before['first_seeds']} --max-seeds {before['max_seeds']}"
    if plan is None or plan.as_dict() != before:
        raise RequestError(
            f"the comparison in {folder} looks at its verdicts repeatedly, and how often was decided when it began; "
            f"resume it with {again}, or choose another --out"
        )


def news(methods: Mapping[str, Mapping[str, Any]], open_: Sequence[str], seeds: int, plan: Plan) -> str:
    """What a look has shown, and what comes next, in one line."""
    judged = [f"{label_of(name, row)} {row['verdict']}" for name, row in methods.items() if "verdict" in row]
    later = next((look for look in plan.looks if look > seeds), None)
    then = "all are decided" if not open_ else f"{later} seeds for what is open" if later else "no seeds are left"
    return f"{counted(seeds, 'seed')}: {', '.join(judged)}; {then}"
