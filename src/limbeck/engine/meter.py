"""The numbers of one epoch, kept on the device until somebody looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck.engine.labels import hard_labels
from limbeck.engine.totals import Totals
from limbeck.errors import RunError
from limbeck.types import Batch, Step, labelled

HELD = 2**20
"""Logits that are held before they are counted; 4 MiB in fp32."""
TAKEN = frozenset(("phase", "epoch", "loss", "accuracy", "lr", "seconds", "val_loss", "val_accuracy"))
"""Names of an epoch's record that belong to no part; a part that is called so gets a prime."""


class _Held(NamedTuple):
    """One step on the device; the first of the values is its loss, the others are its parts, in order."""

    logits: Tensor
    targets: Tensor
    names: tuple[str, ...]
    values: list[Tensor]


class _Counted(NamedTuple):
    """Some steps with parts of the same names: a row each of correct predictions, labels, loss and parts."""

    names: tuple[str, ...]
    sizes: list[int]
    table: Tensor


class Meter:
    """Collects loss, correct predictions and the parts of each step without waiting for the device.

    `look` brings what has gathered to the host, all at once, and stops the run if a number is not finite. Each part is
    averaged, under its own name, over the samples of those steps that had it; accuracy and the task loss over the
    samples that have a label. What no sample counts for has no mean.

    Args:
        phase: What is being trained, for the error.
        epoch: Which epoch (from 0) the numbers belong to.
        steps: How many of its steps were counted before an interruption.
        sums: What they had gathered (`Totals.sums`).
    """

    def __init__(
        self, phase: str, epoch: int, steps: int = 0, sums: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self.phase = phase
        self.epoch = epoch
        self.steps = steps
        self.totals = Totals(sums)
        self._held: list[_Held] = []
        self._logits = 0
        self._counted: list[_Counted] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Take one step's numbers, still on the device.

        Steps are held as they are and counted many at once: on small networks, counting each by itself would take a
        tenth of a step.
        """
        logits = step.output.detach()
        if logits.is_cuda:  # the next replay of a compiled student's CUDA graph writes over them
            logits = logits.clone()
        values = [step.loss.detach(), *step.parts.values()]
        self._held.append(_Held(logits, batch.targets, tuple(step.parts), values))
        self._logits += logits.numel()
        if self._logits > HELD:
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
        correct, labels, loss, *parts = columns
        self.totals.add("loss", sum(sizes), map(mul, sizes, loss))
        self.totals.add("accuracy", sum(labels), correct)
        for name, values in zip(names, parts, strict=True):
            counts = labels if name == "task" or name.startswith("task ") else sizes
            self.totals.add(f"{name}'" if name in TAKEN else name, sum(counts), map(mul, counts, values))

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
        sizes = [len(held.targets) for held in self._held]
        labels = torch.cat([hard_labels(held.targets) for held in self._held])
        right = torch.cat([held.logits for held in self._held]).argmax(-1) == labels
        both = torch.stack([right, labelled(labels)])
        hits = torch.stack([some.sum(1) for some in torch.split(both, sizes, dim=1)]).float()
        at = 0
        for names, group in groupby(self._held, key=lambda held: held.names):
            values = [held.values for held in group]
            flat = torch.stack([value.float() for some in values for value in some])
            end = at + len(values)
            table = torch.cat([hits[at:end], flat.view(len(values), -1)], 1)
            self._counted.append(_Counted(names, sizes[at:end], table))
            at = end
        self._held, self._logits = [], 0
