"""Numbers and choices that a training is asked for, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from limbeck.errors import RequestError, shown, unknown

KEPT = ("last", "best")
"""Whose weights a training gives: those of the last epoch, or of the best one on the validation."""


@dataclass(frozen=True)
class Saving:
    """What a training writes into its folder besides metrics, student and a checkpoint an epoch.

    Attributes:
        checkpoint_steps: A checkpoint every so many batches too, for epochs that are long; None for none.
        save_every: The student as PHASE-epochN after every so many epochs; None for none.
        phase: Name of this training in metrics.jsonl, and of the model's files.
        about: What the student's JSON file says besides.
    """

    checkpoint_steps: int | None = None
    save_every: int | None = None
    phase: str = "student"
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What a training is asked for in numbers and words, each as `fit` takes it."""

    epochs: int
    accumulate_steps: int = 1
    max_grad_norm: float | None = None
    keep: str = "last"
    seed: int = 0
    saving: Saving = field(default_factory=Saving)

    def check(self, *, validates: bool) -> None:
        """Raise RequestError for numbers and choices that no training can start with."""
        if not isinstance(self.saving, Saving):
            raise RequestError(f"saving is limbeck.Saving, such as Saving(save_every=5), not {shown(self.saving)}")
        norm, steps, every = self.max_grad_norm, self.saving.checkpoint_steps, self.saving.save_every
        if (norm is not None and not norm > 0) or (steps is not None and steps < 1):
            raise RequestError(f"max_grad_norm and checkpoint_steps must be positive, not {norm} and {steps}")
        if self.epochs < 1 or self.accumulate_steps < 1 or not isinstance(self.epochs, int):
            raise RequestError(
                "epochs and accumulate_steps must be whole numbers from 1 on, not "
                f"{self.epochs} and {self.accumulate_steps}"
            )
        if every is not None and (not isinstance(every, int) or every < 1):
            raise RequestError(f"save_every is a whole number of epochs from 1 on, not {shown(every)}")
        if self.keep not in KEPT:
            raise unknown("value of keep", self.keep, KEPT)
        if self.keep == "best" and not validates:
            raise RequestError("keep: best chooses by validation: give validation data (data.validation in a recipe)")


def stopped(trained: int, epochs: int) -> dict[str, bool]:
    """What a result says of a training that ended before its last epoch; nothing of another."""
    return {"stopped_early": True} if trained < epochs else {}
