"""A training that ends where its validation stops improving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.errors import RequestError, shown
from limbeck.options import is_whole
from limbeck.tasks import Task


@dataclass(frozen=True)
class EarlyStopping(Callback):
    """Ends a training where its validation stops improving: a function of the epochs' records alone.

    It follows the task's monitor; `Task(monitor=…, mode=…)` chooses another. So a resumed training, and each of several
    processes, decides as one that ran through. The student is that of the last epoch that was trained, or with
    `keep="best"` that of the best one.

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
    needs_validation = True

    def __post_init__(self) -> None:
        if not is_whole(self.patience, 1) or not self.min_delta >= 0:
            raise RequestError(
                "early stopping takes a patience of 1 or more whole epochs and a min_delta of 0 or more, not "
                f"{shown(self.patience)} and {shown(self.min_delta)}"
            )

    def fit_start(self, training: Training) -> None:
        self._look(training)

    def epoch_end(self, training: Training) -> None:
        self._look(training)

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

    def _look(self, training: Training) -> None:
        if self.ended(training.records, training.scheme.task):
            training.stop()
