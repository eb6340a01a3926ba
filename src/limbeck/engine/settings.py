"""Numbers and choices that a training is asked for, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import RequestError, shown
from limbeck.tasks import Task


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a training where its validation stops improving: a function of the epochs' records alone.

    So a resumed training, and each of several processes, decides as one that ran through. The student is that of the
    last epoch that was trained, or with `restore_best` that of the best one.

    Attributes:
        patience: Epochs without an improvement after which the training ends.
        min_delta: What an epoch must gain over the best one before it, and more, to count as an improvement.

    Raises:
        RequestError: A patience below 1, or a min_delta below 0.

    >>> from limbeck.tasks import Classification
    >>> stopping = EarlyStopping(patience=2)
    >>> records = [{"val_accuracy": one} for one in (0.5, 0.6, 0.6, 0.55)]
    >>> [stopping.ended(records[:n], Classification()) for n in range(5)]
    [False, False, False, False, True]
    """

    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        whole = isinstance(self.patience, int) and not isinstance(self.patience, bool)
        if not whole or self.patience < 1 or not self.min_delta >= 0:
            raise RequestError(
                "early_stopping takes a patience of 1 or more whole epochs and a min_delta of 0 or more, not "
                f"{shown(self.patience)} and {shown(self.min_delta)}"
            )

    def ended(self, records: Sequence[Mapping[str, Any]], task: Task) -> bool:
        """Whether a training with these records, one an epoch, is over, by the task's monitor."""
        best, since = -float("inf"), 0
        for record in records:
            score = record[f"val_{task.monitor}"] * (1 if task.mode == "max" else -1)
            if score > best + self.min_delta:
                best, since = score, 0
            else:
                since += 1
        return since >= self.patience


@dataclass(frozen=True)
class Settings:
    """What a training is asked for in numbers and words, each as `fit` takes it."""

    epochs: int
    accumulate_steps: int
    max_grad_norm: float | None
    restore_best: bool
    early_stopping: EarlyStopping | None
    save_every: int | None
    checkpoint_steps: int | None
    seed: int
    phase: str
    about: Mapping[str, Any]

    def check(self, *, validates: bool) -> None:
        """Raise RequestError for what no training can start with."""
        window, norm, steps = self.accumulate_steps, self.max_grad_norm, self.checkpoint_steps
        check(self.epochs, window, self.restore_best, norm, steps, validates=validates)
        check_ends(self.early_stopping, self.save_every, validates=validates)


def stopped(trained: int, epochs: int) -> dict[str, bool]:
    """What a result says of a training that ended before its last epoch; nothing of another."""
    return {"stopped_early": True} if trained < epochs else {}


def check(
    epochs: int,
    accumulate_steps: int,
    restore_best: bool,
    max_grad_norm: float | None,
    checkpoint_steps: int | None,
    *,
    validates: bool,
) -> None:
    """Raise RequestError for numbers and choices that no training can start with."""
    if (max_grad_norm is not None and not max_grad_norm > 0) or (checkpoint_steps is not None and checkpoint_steps < 1):
        raise RequestError(
            f"max_grad_norm and checkpoint_steps must be positive, not {max_grad_norm} and {checkpoint_steps}"
        )
    if epochs < 1 or accumulate_steps < 1 or not isinstance(epochs, int):
        raise RequestError(
            f"epochs and accumulate_steps must be whole numbers from 1 on, not {epochs} and {accumulate_steps}"
        )
    if not isinstance(restore_best, bool):
        raise RequestError(f"restore_best is True or False, not {shown(restore_best)}")
    if restore_best and not validates:
        raise RequestError("restore_best chooses by validation: give validation data (data.validation in a recipe)")


def check_ends(early_stopping: EarlyStopping | None, save_every: int | None, *, validates: bool) -> None:
    """Raise RequestError for an early stopping that has nothing to look at, and for no number of epochs."""
    if save_every is not None and (not isinstance(save_every, int) or save_every < 1):
        raise RequestError(f"save_every is a whole number of epochs from 1 on, not {shown(save_every)}")
    if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
        raise RequestError(f"early_stopping is EarlyStopping(patience=5), not {shown(early_stopping)}")
    if early_stopping is not None and not validates:
        raise RequestError("early_stopping looks at the validation: give validation data (data.validation in a recipe)")
