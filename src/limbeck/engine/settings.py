"""Numbers and choices that a training is asked for, checked before anything is built."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError, as_request, shown, unknown
from limbeck.options import is_whole

KEPT = ("last", "best")
"""Whose weights a training gives: those of the last epoch, or of the best one on the validation."""
_NAME = re.compile(r"[\w.-]+")


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

    def check(self, *, writes: bool) -> None:
        """Raise RequestError for what is no such number, name or description, or would be written nowhere."""
        for name in ("checkpoint_steps", "save_every"):
            every = getattr(self, name)
            check_count(name, every, or_none=True)
            if every is not None and not writes:
                raise RequestError(f"{name} writes into a run folder, and there is none: give out=FOLDER")
        if not isinstance(self.phase, str) or not _NAME.fullmatch(self.phase):
            raise RequestError(f"phase is a name of letters, digits, '.', '_' and '-', not {shown(self.phase)}")
        with as_request(lambda reason: f"saving: about is written as JSON: {reason}"):
            json.dumps(dict(self.about))


@dataclass(frozen=True)
class Settings:
    """What a training is asked for in numbers and words, each as `fit` takes it."""

    epochs: int
    accumulate_steps: int = 1
    max_grad_norm: float | None = None
    keep: str = "last"
    validate_steps: int | None = None
    seed: int = 0
    saving: Saving = field(default_factory=Saving)

    def check(self, *, validates: bool, writes: bool = True) -> None:
        """Raise RequestError for numbers and choices that no training can start with."""
        if not isinstance(self.saving, Saving):
            raise RequestError(f"saving is limbeck.Saving, such as Saving(save_every=5), not {shown(self.saving)}")
        self.saving.check(writes=writes)
        check_count("epochs", self.epochs)
        check_count("accumulate_steps", self.accumulate_steps)
        check_count("validate_steps", self.validate_steps, or_none=True)
        check_count("seed", self.seed, least=None)
        norm = self.max_grad_norm
        if norm is not None and not (isinstance(norm, int | float) and norm > 0):
            raise RequestError(f"max_grad_norm is a number above 0, not {shown(norm)}")
        if self.keep not in KEPT:
            raise unknown("value of keep", self.keep, KEPT)
        if self.keep == "best" and not validates:
            raise RequestError("keep: best chooses by validation: give validation data (data.validation in a recipe)")
        if self.validate_steps is not None and not validates:
            raise RequestError("validate_steps: there is nothing to validate on: give validation data")


def as_folder(out: object) -> Path | None:
    """The run folder, where one is given.

    Raises:
        RequestError: It is no path, or that of a file.
    """
    if out is not None and not isinstance(out, str | PathLike):
        raise RequestError(f"out is the path of a run folder, not {shown(out)}")
    if out and Path(out).is_file():
        raise RequestError(f"out={str(out)!r} is a file; give the path of a run folder")
    return Path(out) if out else None


def check_count(name: str, value: object, *, least: int | None = 1, or_none: bool = False) -> None:
    """Raise RequestError for what is no whole number, or a smaller one than the least."""
    if value is None and or_none:
        return
    if not is_whole(value, least):
        from_on = "" if least is None else f" from {least} on"
        raise RequestError(f"{name} is a whole number{from_on}, not {shown(value)}")


def stopped(trained: int, epochs: int) -> dict[str, bool]:
    """What a result says of a training that ended before its last epoch; nothing of another."""
    return {"stopped_early": True} if trained < epochs else {}
