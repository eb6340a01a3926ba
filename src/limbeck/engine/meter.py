"""The numbers of one epoch, kept on the device until somebody looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RunError
from limbeck.types import Batch, Step

HELD = 2**20
"""Logits that are held before they are counted; 4 MiB in fp32."""


class Meter:
    """Collects loss, correct predictions and the parts of each step without waiting for the device.

    `look` brings what has gathered to the host, all at once, and stops the run if a number is not finite.

    Args:
        phase: What is being trained, for the error.
        epoch: Which epoch (from 0) the numbers belong to.
        rows: What an interrupted epoch had gathered.
    """

    def __init__(self, phase: str, epoch: int, rows: list[list[float]] | None = None) -> None:
        self.phase = phase
        self.epoch = epoch
        self.rows = rows or []
        self.names: tuple[str, ...] = ()
        self._steps: list[tuple[Tensor, Tensor, list[Tensor]]] = []
        self._held = 0
        self._pending: list[tuple[list[int], Tensor]] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Take one step's numbers, still on the device.

        Steps are held as they are and counted many at once: on small networks, counting each by itself would take a
        tenth of a step.
        """
        self.names = tuple(step.parts)
        logits = step.logits.detach()
        if logits.is_cuda:  # the next replay of a compiled student's CUDA graph writes over them
            logits = logits.clone()
        self._steps.append((logits, batch.targets, [step.loss.detach(), *step.parts.values()]))
        self._held += step.logits.numel()
        if self._held > HELD:
            self._count()

    def look(self) -> None:
        """Bring the gathered numbers to the host.

        Raises:
            RunError: A loss is not finite; names epoch, step and term.
        """
        self._count()
        sizes = [size for some, _ in self._pending for size in some]
        numbers = torch.cat([table for _, table in self._pending]).tolist() if sizes else []
        for size, numbers_of_step in zip(sizes, numbers, strict=True):
            row = [float(size), *numbers_of_step]
            self.rows.append(row)
            if not all(map(math.isfinite, row)):
                bad = [
                    name for name, value in zip(("loss", *self.names), row[2:], strict=True) if not math.isfinite(value)
                ]
                culprit = ", ".join(bad[1:] or bad)
                at_once = self.epoch == 0 and len(self.rows) == 1
                remedy = (
                    "look for NaN in the inputs, the teacher's answers and the student's start"
                    if at_once
                    else "try a lower learning rate or weight, or clip the gradients"
                )
                raise RunError(
                    f"{self.phase}: {culprit} is not finite in epoch {self.epoch + 1}, step {len(self.rows)}; {remedy}"
                )
        self._pending.clear()

    def _count(self) -> None:
        """Bring the held steps into a table on the device: a row a step of correct predictions, loss and parts."""
        if not self._steps:
            return
        sizes = [len(targets) for _, targets, _ in self._steps]
        right = _right(torch.cat([x for x, _, _ in self._steps]), torch.cat([y for _, y, _ in self._steps]))
        correct = torch.stack([some.sum() for some in torch.split(right, sizes)]).float()
        values = torch.stack([value.float() for _, _, losses in self._steps for value in losses])
        self._pending.append((sizes, torch.cat([correct[:, None], values.view(len(sizes), -1)], 1)))
        self._steps, self._held = [], 0

    def sums(self) -> list[float]:
        """Samples, correct predictions, then loss and parts times samples, over all rows so far."""
        self.look()
        weighted = [[row[0], row[1], *(row[0] * value for value in row[2:])] for row in self.rows]
        return [math.fsum(column) for column in zip(*weighted, strict=True)]

    def means(self, sums: list[float]) -> dict[str, float]:
        """Loss, accuracy and parts from sums such as `sums` gives."""
        samples, correct, loss, *parts = sums
        means = {"loss": loss / samples, "accuracy": correct / samples}
        return means | {name: part / samples for name, part in zip(self.names, parts, strict=True)}


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    labels = targets if targets.dim() == 1 else targets.argmax(-1)
    return logits.argmax(-1) == labels
