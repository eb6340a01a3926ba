"""What a search is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from limbeck.tuning.limits import Limits
from limbeck.tuning.space import NOTHING, GivenSpace


@dataclass(frozen=True)
class Asked:
    """What a search is asked for.

    Attributes:
        methods: As `compare` takes them; the baseline is always among the contenders.
        trials: Of the baseline and of each method.
        minutes: Of the search, shared equally; None for as long as the trials take.
        fresh: Seeds on which the winners are trained anew.
        space: What a file of a space says.
        storage: An address of Optuna, or a path, where several processes share the search; None: a journal in the
            folder.
        at_most: What a student may cost.
    """

    methods: Sequence[str]
    trials: int
    minutes: float | None = None
    fresh: int = 5
    space: GivenSpace = NOTHING
    storage: str | None = None
    at_most: Limits = field(default_factory=Limits)
