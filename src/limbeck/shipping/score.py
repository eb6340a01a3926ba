"""The score of a model's outputs on a split, by the monitor of its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.quantization.session import Array
from limbeck.shipping.intervals import Interval, jackknife, paired, wilson
from limbeck.tasks import Task
from limbeck.tasks.classification import counts_samples
from limbeck.types import Targets

GROUPS = 20
"""Groups of samples, each of which is left out once, for the interval of a score that is no share of samples."""
KEPT = 2**24
"""Numbers of the outputs that are kept to be compared with another file's; 64 MiB."""


@dataclass(frozen=True)
class Judged:
    """One model's outputs on a split.

    Attributes:
        task: What is learned.
        whole: What the task's metrics gathered of all samples.
        groups: The same of each group of samples; empty where the score is a share of samples.
        hits: (N,) bool, of the samples with a label whether each is right; None where the score is no share of samples.
        outputs: Outputs of the first samples, one number after the other.
    """

    task: Task
    whole: Any
    groups: tuple[Any, ...]
    hits: Array | None
    outputs: Array

    @cached_property
    def figures(self) -> Mapping[str, float]:
        """The task's metrics."""
        return self.task.metrics().figures([self.whole])

    @property
    def score(self) -> float:
        """The monitor."""
        if self.task.monitor not in self.figures:
            raise RequestError(f"{self.task.monitor} has no value on these samples; {self.task.name} is judged by it")
        return self.figures[self.task.monitor]

    def drop(self, reference: Judged) -> float:
        """By how much the monitor is worse than another model's on the same samples.

        Of a score of which more is better the difference; of one of which less is better, which may be of any size, the
        difference as a share of the other's.
        """
        if self.task.mode == "max":
            return reference.score - self.score
        return (self.score - reference.score) / max(abs(reference.score), 1e-12)

    def distance(self, reference: Judged) -> float:
        """Mean squared difference of the outputs over the variance of the other model's."""
        return distance(self.outputs, reference.outputs)

    @property
    def interval(self) -> Interval:
        """The score's 95 % interval: Wilson's of a share of samples, else by the jackknife over groups of samples."""
        if self.hits is not None:
            return wilson(int(self.hits.sum()), len(self.hits))
        return jackknife(self.score, self._without)

    def beside(self, other: Judged) -> tuple[float, Interval]:
        """The difference of the scores, and its 95 % interval, in pairs of samples (or of groups of samples)."""
        if self.hits is not None and other.hits is not None:
            return paired(self.hits, other.hits)
        difference = self.score - other.score
        return difference, jackknife(difference, [a - b for a, b in zip(self._without, other._without, strict=True)])

    @cached_property
    def _without(self) -> list[float]:
        """The score without each of the groups."""
        metrics, groups = self.task.metrics(), self.groups
        return [
            metrics.figures([*groups[:at], *groups[at + 1 :]]).get(self.task.monitor, self.score)
            for at in range(len(groups))
        ]


class Gathering:
    """What `Judged` needs of one model's outputs; a batch is forgotten when the next one comes.

    Args:
        task: What is learned.
        keep: Numbers of the outputs that are kept to be compared with another file's.
    """

    def __init__(self, task: Task, keep: int = KEPT) -> None:
        self.task, self.left, self.seen = task, keep, 0
        self.share = counts_samples(task)
        self.whole = task.metrics()
        self.groups = [] if self.share else [task.metrics() for _ in range(GROUPS)]
        self.hits: list[Array] = []
        self.kept: list[Array] = []

    def add(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        """Take in a batch: outputs (B, …), its targets, and what the teacher gives."""
        self.whole.update(output, targets, teacher)
        if self.share:
            right, known = self.task.score(output, targets)
            self.hits.append(right[known.bool()].bool().numpy())
        for group, metrics in enumerate(self.groups):
            at = slice((group - self.seen) % GROUPS, None, GROUPS)
            if len(output[at]):
                metrics.update(output[at], _part(targets, at), _part(teacher, at))
        if self.left > 0:
            self.kept.append(output.numpy().ravel())
            self.left -= output.numel()
        self.seen += len(output)

    def judged(self) -> Judged:
        """The score of all batches.

        Raises:
            RequestError: There was no batch, or a single sample of a score that is no share of samples.
        """
        if not self.seen:
            raise RequestError("nothing to evaluate: the loader gives no batch at all")
        if self.seen == 1 and not self.share:
            raise RequestError("one sample shows nothing; give at least two to evaluate on")
        states = tuple(one.state() for one in self.groups[: self.seen])
        hits = np.concatenate(self.hits) if self.share else None
        outputs = np.concatenate(self.kept) if self.kept else np.empty(0, np.float32)
        return Judged(self.task, self.whole.state(), states, hits, outputs)


def distance(outputs: Array, reference: Array) -> float:
    """Mean squared difference over the variance of the reference; infinite where an output is not finite."""
    found = float(np.mean((outputs.astype(np.float64) - reference) ** 2) / max(float(np.var(reference)), 1e-12))
    return found if np.isfinite(found) else float("inf")


def figures(judged: Judged, baseline: Judged | None) -> dict[str, Any]:
    """What a row of the table says of a model's outputs on the test set.

    Args:
        judged: The model's.
        baseline: The baseline's in torch, for a difference in pairs of samples.
    """
    found: dict[str, Any] = {
        "score": judged.score,
        "interval": list(judged.interval),
        "agreement": judged.figures.get("agreement"),
        "calibration_error": judged.figures.get("calibration_error"),
        "test": dict(judged.figures),
    }
    if baseline is not None:
        difference, interval = judged.beside(baseline)
        found["beside_baseline"] = {"difference": difference, "interval": list(interval)}
    return found


def lost(drop: float, mode: str) -> str:
    """A drop in words: in points of a score of which more is better, else in percent of the fp32 file's score."""
    return f"{100 * drop:.2f} {'points' if mode == 'max' else '%'}"


def _part(values: Any, at: slice) -> Any:
    return None if values is None else values[at]
