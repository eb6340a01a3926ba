"""The commands that are tried, what they leave when nothing happens, and whether a broken one came to the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from benchmarks.faults.contents import contents, differences
from benchmarks.faults.forked import Ended, Place, go

RECIPE = {
    "name": "tiny",
    "data": {"name": "digits", "batch_size": 64, "validation": 0.2, "augment": ["crop"], "views": 3},
    "teacher": {
        "model": "cnn",
        "channels": [8, 16],
        "epochs": 3,
        "optimizer": {"name": "adam", "lr": 0.01},
        "store": {"where": "disk"},
    },
    "student": {"model": "mlp", "hidden": [16]},
    "distill": {"terms": [{"loss": "kd", "weight": 0.9}]},
    "optimizer": {"name": "adam", "lr": 0.01},
    "epochs": 4,
    "keep": "best",
}
"""Digits with a teacher that is trained and stored in three views, and students that keep their best epoch."""


@dataclass(frozen=True)
class Trial:
    """A command in its place.

    Attributes:
        words: The command.
        again: What is added to resume it.
        seconds: How long it takes when nothing happens.
        left: What it leaves then.
    """

    place: Place
    words: tuple[str, ...]
    again: tuple[str, ...]
    seconds: float = 0.0
    left: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"limbeck {self.words[0]}"

    @property
    def resumed(self) -> tuple[str, ...]:
        return (*self.words, *self.again)

    def begin(self) -> None:
        """A place where nothing was done yet."""
        self.place.clear()
        (self.place.work / "tiny.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")

    def wrong(self, ended: Ended) -> list[str]:
        """What is not as it should be after the command has come to its end."""
        if ended.status != 0:
            return [f"it ended with {ended.told}"]
        return differences(contents(self.place), self.left)

    def finish(self, *, fresh: bool = False) -> list[str]:
        """Resume it, undisturbed; what is not as it should be then."""
        return self.wrong(go(self.place, self.resumed, fresh=fresh))


def measured(trial: Trial) -> Trial:
    """The same, carried out once without disturbance.

    Raises:
        RuntimeError: It fails even so.
    """
    trial.begin()
    began = time.perf_counter()
    ended = go(trial.place, trial.words)
    seconds = time.perf_counter() - began
    if ended.status != 0:
        raise RuntimeError(f"{trial.name} fails undisturbed: {ended.told}")
    return Trial(trial.place, trial.words, trial.again, seconds, contents(trial.place))


def commands(place: Place) -> Sequence[Trial]:
    """run, compare and cache."""
    run = Trial(place, ("run", "tiny.yaml", "--out", "out"), ("--resume",))
    methods = ("--methods", "recipe", "--seeds", "2")
    compare = Trial(place, ("compare", "tiny.yaml", *methods, "--out", "out"), ("--resume",))
    return [run, compare, Trial(place, ("cache", "tiny.yaml"), ())]
