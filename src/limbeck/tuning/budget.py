"""Equal budgets: whose turn it is, so that the baseline and every method get as many trials and as much time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """What a contender has used: trials that were begun, and the seconds of those that are done."""

    trials: int
    seconds: float


@dataclass(frozen=True)
class Budget:
    """What each contender may use.

    Attributes:
        trials: So many trials each.
        seconds: So much time each; None for as long as the trials take.
    """

    trials: int
    seconds: float | None = None

    @classmethod
    def shared(cls, trials: int, minutes: float | None, contenders: int, processes: int = 1) -> Budget:
        """The budget of one of several contenders that share these minutes of each process equally.

        >>> Budget.shared(9, minutes=10, contenders=2, processes=4)
        Budget(trials=9, seconds=1200.0)
        """
        return cls(trials, None if minutes is None else 60 * minutes * processes / contenders)

    def due(self, spent: Mapping[str, Spent]) -> str | None:
        """Whose trial is next: of those with the fewest the first; None where the search is over.

        A round, one trial of each, is always finished, and none begins once somebody's time is used up: the numbers of
        trials are equal at the end.

        >>> Budget(9, 60).due({"baseline": Spent(2, 61), "kd": Spent(1, 30)})
        'kd'
        >>> Budget(9, 60).due({"baseline": Spent(2, 61), "kd": Spent(2, 50)}) is None
        True
        """
        first = min(spent, key=lambda name: spent[name].trials)
        whole_round = len({one.trials for one in spent.values()}) == 1
        used_up = self.seconds is not None and max(one.seconds for one in spent.values()) >= self.seconds
        return None if spent[first].trials >= self.trials or (whole_round and used_up) else first
