"""The numbers of one epoch, kept on the device until somebody looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import mul
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.engine.totals import Totals
from limbeck.errors import RunError
from limbeck.tasks import Task
from limbeck.tasks.metrics import form
from limbeck.types import Batch, Step, Targets

HELD = 2**20
"""Numbers of outputs that are held before they are counted; 4 MiB in fp32."""
TAKEN = frozenset(("phase", "epoch", "loss", "lr", "seconds"))
"""Names of an epoch's record that belong to no part."""


class _Held(NamedTuple):
    """One step on the device; the first of the values is its loss, the others are its parts, in order."""

    size: int
    output: Tensor
    targets: Targets
    names: tuple[str, ...]
    values: list[Tensor]
    score: Tensor | None


class _Counted(NamedTuple):
    """Some steps with parts of the same names: a row each of the score's sum and count, loss and parts."""

    names: tuple[str, ...]
    sizes: list[int]
    table: Tensor


class Meter:
    """Collects loss, the task's quick score and the parts of each step without waiting for the device.

    `look` brings what has gathered to the host, all at once, and stops the run if a number is not finite. Each part is
    averaged, under its own name, over the samples of those steps that had it; the score and the task loss over what
    has a label. What no sample counts for has no mean.

    Args:
        task: What is learned.
        phase: What is being trained, for the error.
        epoch: Which epoch (from 0) the numbers belong to.
        steps: How many of its steps were counted before an interruption.
        sums: What they had gathered (`Totals.sums`).
    """

    def __init__(
        self,
        task: Task,
        phase: str,
        epoch: int,
        steps: int = 0,
        sums: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.task = task
        self.phase = phase
        self.epoch = epoch
        self.steps = steps
        self.totals = Totals(sums)
        self._held: list[_Held] = []
        self._numbers = 0
        self._counted: list[_Counted] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Take one step's numbers, still on the device.

        Steps are held as they are and counted many at once: on small networks, counting each by itself would take a
        tenth of a step.
        """
        output = step.output.detach()
        if output.is_cuda:  # the next replay of a compiled student's CUDA graph writes over it
            output = output.clone()
        values = [step.loss.detach(), *step.parts.values()]
        self._held.append(_Held(batch.size, output, batch.targets, tuple(step.parts), values, step.score))
        self._numbers += output.numel()
        if self._numbers > HELD:
            self._count()

    def look(self) -> Totals:
        """Bring the gathered numbers to the host; the totals so far.

        Raises:
            RunError: A loss is not finite; names epoch, step and term.
        """
        self._count()
        tables = [table.flatten() for _, _, table in self._counted]
        numbers = torch.cat(tables).tolist() if tables else []
        at = 0
        for names, sizes, table in self._counted:
            own = numbers[at : at + table.numel()]
            at += table.numel()
            columns = [own[column :: table.shape[1]] for column in range(table.shape[1])]
            if not all(map(math.isfinite, own)):
                self._stop(names, columns)
            self.steps += len(sizes)
            self._add(names, sizes, columns)
        self._counted.clear()
        return self.totals

    def _add(self, names: Sequence[str], sizes: Sequence[int], columns: Sequence[Sequence[float]]) -> None:
        scores, labels, loss, *parts = columns
        self.totals.add("loss", sum(sizes), map(mul, sizes, loss))
        if self.task.running:
            self.totals.add(self.task.running, sum(labels), scores)
        for name, values in zip(names, parts, strict=True):
            counts = labels if name == "task" or name.startswith("task ") else sizes
            self.totals.add(f"{name}'" if self._is_taken(name) else name, sum(counts), map(mul, counts, values))

    def _is_taken(self, name: str) -> bool:
        """Whether an epoch's record has something else under this name; a part that is called so gets a prime."""
        return name in TAKEN or name == self.task.running or name.startswith("val_")

    def _stop(self, names: Sequence[str], columns: Sequence[Sequence[float]]) -> None:
        """Say which of some steps is the first that is not finite, and in what."""
        row = next(row for row, values in enumerate(zip(*columns, strict=True)) if not all(map(math.isfinite, values)))
        values = [column[row] for column in columns[2:]]
        bad = [name for name, value in zip(("loss", *names), values, strict=True) if not math.isfinite(value)]
        culprit = ", ".join(bad[1:] or bad)
        step = self.steps + row + 1
        remedy = (
            "look for NaN in the inputs, the teacher's answers and the student's start"
            if self.epoch == 0 and step == 1
            else "try a lower learning rate or weight, or clip the gradients"
        )
        raise RunError(f"{self.phase}: {culprit} is not finite in epoch {self.epoch + 1}, step {step}; {remedy}")

    def _count(self) -> None:
        """Bring the held steps into tables on the device."""
        if not self._held:
            return
        sizes = [held.size for held in self._held]
        scores = torch.cat([self._scores(list(group)) for _, group in groupby(self._held, key=_kind)])
        at = 0
        for names, group in groupby(self._held, key=lambda held: held.names):
            values = [held.values for held in group]
            flat = torch.stack([value.float() for some in values for value in some])
            end = at + len(values)
            table = torch.cat([scores[at:end], flat.view(len(values), -1)], 1)
            self._counted.append(_Counted(names, sizes[at:end], table))
            at = end
        self._held, self._numbers = [], 0

    def _scores(self, held: Sequence[_Held]) -> Tensor:
        """(steps, 2): of some steps of one kind, the sum and the count of the task's score."""
        counted = [one.score for one in held if one.score is not None]
        if counted:
            return torch.stack(counted).float()
        outputs = torch.cat([one.output for one in held])
        if not self.task.running or held[0].targets is None:
            counts = [[0.0, float(one.size)] for one in held]
            return torch.tensor(counts, device=outputs.device)
        score = self.task.score(outputs, torch.cat([one.targets for one in held]))
        sizes = [one.size for one in held]
        return torch.stack([some.sum(1) for some in torch.split(score, sizes, dim=1)]).float()


def _kind(held: _Held) -> Any:
    """What steps that are counted together have in common."""
    return held.score is None, form(held.output, held.targets)
