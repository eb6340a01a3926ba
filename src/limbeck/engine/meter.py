"""The numbers of one epoch, kept on the device until somebody looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from limbeck.errors import RunError
from limbeck.types import Batch, Step


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
        self._pending: list[tuple[int, Tensor]] = []

    def add(self, step: Step, batch: Batch) -> None:
        """Take one step's numbers, still on the device."""
        self.names = tuple(step.parts)
        loss = step.loss.detach()
        parts = [part.to(loss.dtype) for part in step.parts.values()]
        self._pending.append(
            (batch.size, torch.stack([_correct(step.logits, batch.targets).to(loss.dtype), loss, *parts]))
        )

    def look(self) -> None:
        """Bring the gathered numbers to the host.

        Raises:
            RunError: A loss is not finite; names epoch, step and term.
        """
        if not self._pending:
            return
        sizes, numbers = zip(*self._pending, strict=True)
        for size, numbers_of_step in zip(sizes, torch.stack(numbers).tolist(), strict=True):
            row = [float(size), *numbers_of_step]
            self.rows.append(row)
            if not all(map(math.isfinite, row)):
                bad = [
                    name for name, value in zip(("loss", *self.names), row[2:], strict=True) if not math.isfinite(value)
                ]
                culprit = ", ".join(bad[1:] or bad)
                raise RunError(
                    f"{self.phase}: {culprit} is not finite in epoch {self.epoch + 1}, step {len(self.rows)}; "
                    "try a lower learning rate or weight, or clip the gradients"
                )
        self._pending.clear()

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


def _correct(logits: Tensor, targets: Tensor) -> Tensor:
    labels = targets if targets.dim() == 1 else targets.argmax(-1)
    return (logits.detach().argmax(-1) == labels).sum()
