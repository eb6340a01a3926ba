"""What figures on held-out data are made of: sums over samples, which several processes can add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.engine.labels import hard_labels
from limbeck.errors import RequestError
from limbeck.types import labelled

HELD = 2**20
"""Logits that are held before they are counted; 4 MiB in fp32."""
BINS = 15
"""Bins of equal width for the calibration error; a confidence of 1 has one more to itself."""


class Sums(NamedTuple):
    """Sums over samples with a label.

    Attributes:
        classes: How many the model knows.
        values: Samples; their cross-entropy; those whose label is the most likely class, or among the five most likely;
            with or without a label, those on which the teacher has the same first choice, and those about which a
            teacher was asked; then, by bin of
            confidence, the confidences, and the samples whose label is the most likely class.
    """

    classes: int
    values: Sequence[float]

    def plus(self, other: Sums) -> Sums:
        """The sums over the samples of both."""
        return Sums(self.classes, [a + b for a, b in zip(self.values, other.values, strict=True)])


class Tally:
    """Adds samples up on the device, many at once, without waiting for it until `sums` is asked for."""

    def __init__(self) -> None:
        self.classes = 0
        self._steps: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._held = 0
        self._row: Tensor | None = None

    def add(self, logits: Tensor, targets: Tensor, teacher: Tensor | None) -> None:
        """Take a batch: logits (B, C), labels (B,) or class probabilities (B, C), the teacher's logits."""
        # Copies: a loader may write its next batch into the same tensors, and a compiled model its next logits.
        copies = logits.float().clone(), hard_labels(targets).long().clone()
        self._steps.append((*copies, None if teacher is None else teacher.argmax(-1)))
        self.classes = logits.shape[1]
        self._held += logits.numel()
        if self._held > HELD:
            self._count()

    def sums(self) -> Sums:
        """The sums over all samples so far."""
        self._count()
        return Sums(self.classes, [] if self._row is None else self._row.tolist())

    def _count(self) -> None:
        if not self._steps:
            return
        logits, labels, choices = zip(*self._steps, strict=True)
        asked = [choice for choice in choices if choice is not None]
        row = _row(torch.cat(logits), torch.cat(labels), torch.cat(asked) if asked else None)
        self._row = row if self._row is None else self._row + row
        self._steps, self._held = [], 0


def _row(logits: Tensor, labels: Tensor, teacher_choice: Tensor | None) -> Tensor:
    """The values of `Sums`."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    known = labelled(labels)
    wrong = labels[known & ((labels < 0) | (labels >= logits.shape[1]))]
    if len(wrong):
        raise RequestError(f"held-out label {int(wrong[0])} is out of range: the student has {logits.shape[1]} classes")
    first = logits.argmax(-1)
    right = first == labels
    asked = torch.full_like(known, teacher_choice is not None)
    agreed = asked if teacher_choice is None else first == teacher_choice
    top5 = (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(-1)
    counts = torch.stack([known, right, top5, agreed, asked]).sum(1).to(wide)
    loss = F.cross_entropy(logits, labels, reduction="sum").to(wide)
    sure = logits.softmax(-1).amax(-1)
    edges = torch.linspace(0, 1, BINS + 1, device=sure.device)
    bins = torch.bucketize(sure, edges, right=True) - 1
    table = torch.zeros(2, BINS + 1, dtype=wide, device=sure.device)
    table.index_add_(1, bins, torch.stack([sure * known, right.to(sure.dtype)]).to(wide))
    return torch.cat([counts[:1], loss[None], counts[1:], table.flatten()])
