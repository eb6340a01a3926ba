"""A class for each position of a sample: each token of a text, each pixel of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError, shown
from limbeck.losses.shapes import in_range
from limbeck.options import is_whole
from limbeck.tasks.labels import likeliest
from limbeck.tasks.metrics import Metrics, Sums, wide
from limbeck.tasks.task import Mode, Task
from limbeck.tasks.weights import Weights
from limbeck.types import IGNORED, Batch, Targets

SUMS = 6
"""Sums that all tasks with positions are judged by."""


class Positions(Task):
    """What tasks with a class for each position have in common; the classes lie in dimension `axis` of the outputs."""

    mode: Mode = "max"
    running = "accuracy"
    axis: int
    form: str
    dims: int

    def __init__(
        self, *, ignore_index: int = IGNORED, class_weights: Sequence[float] | Tensor | None = None, **others: Any
    ) -> None:
        super().__init__(**others)
        if not is_whole(ignore_index):
            raise RequestError(f"ignore_index is a class index, such as 255, not {shown(ignore_index)}")
        self.ignore_index = ignore_index
        self.class_weights = Weights(class_weights)
        self.loss_options = {"average": "positions", "ignore_index": ignore_index}

    @property
    def classifies_samples(self) -> bool:
        return False

    def check_output(self, output: Tensor) -> None:
        if output.dim() != self.dims:
            raise RequestError(f"a {self.form} student gives {self._shape}, and this one gives {tuple(output.shape)}")

    def check(self, output: Tensor, targets: Targets) -> None:
        if not isinstance(targets, Tensor):
            raise RequestError("the loader gives no labels; give them, or leave the task loss out: task_weight 0")
        wanted = output.select(self.axis, 0).shape
        if targets.shape != wanted or targets.is_floating_point():
            raise RequestError(
                f"{self.form} targets are a class index for each position, of shape {tuple(wanted)} for outputs "
                f"{tuple(output.shape)}; these are {tuple(targets.shape)} of {targets.dtype}"
            )
        classes = output.shape[self.axis]
        in_range(targets, classes, self.known(targets), ignored=self.ignore_index)

    def known(self, targets: Targets) -> Tensor:
        known: Tensor = targets != self.ignore_index
        return known

    def size(self, batch: Batch) -> int:
        return batch.size if batch.targets is None else max(1, int(self.known(batch.targets).sum()))

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        if self.own_loss is not None:
            return self.own_loss(output, targets)
        weights = self.class_weights.beside(output)
        first = output.movedim(self.axis, 1)
        return F.cross_entropy(first, targets.long(), weights, ignore_index=self.ignore_index)

    def score(self, output: Tensor, targets: Targets) -> Tensor:
        right = (likeliest(output, self.axis) == targets).flatten(1)
        return torch.stack([right.sum(1), self.known(targets).flatten(1).sum(1)])

    def own_metrics(self) -> Metrics:
        return Sums(partial(_row, axis=self.axis, ignored=self.ignore_index), self._figures)

    @property
    def _shape(self) -> str:
        raise NotImplementedError

    def _figures(self, sums: Sequence[float]) -> Mapping[str, float]:
        raise NotImplementedError


class TokenClassification(Positions):
    """Logits (B, L, C), and class indices (B, L); positions of `ignore_index`, such as padding, do not count.

    The loss is the mean cross-entropy over all tokens of the batch that count, also where batches are accumulated.

    Args:
        ignore_index: The label of tokens that do not count.
        class_weights: (C,) weights of the classes in the loss.
        **others: As for every `Task`.

    Metrics: "accuracy" (the monitor, max; of tokens), "macro_f1" (mean over the classes that occur), "loss",
    "perplexity", and "agreement" with a teacher.
    """

    monitor = "accuracy"
    axis, form, dims = 2, "token-classification", 3

    @property
    def _shape(self) -> str:
        return "logits (B, L, C)"

    def _figures(self, sums: Sequence[float]) -> Mapping[str, float]:
        found, table = _shared(sums)
        each = [2 * hit / (said + there) for hit, said, there in table if said + there]
        return {**found, "macro_f1": math.fsum(each) / len(each), "perplexity": perplexity(found["loss"])}


class Segmentation(Positions):
    """Logits (B, C, H, W), and class indices (B, H, W) or (B, 1, H, W); pixels of `ignore_index` do not count.

    The loss is the mean cross-entropy over all pixels of the batch that count.

    Args:
        ignore_index: The label of pixels that do not count, such as 255, or CamVid's 11.
        class_weights: (C,) weights of the classes in the loss.
        **others: As for every `Task`.

    Metrics: "mean_iou" (the monitor, max; over the classes that occur in labels or predictions), "accuracy" (of
    pixels), "loss", and "agreement" with a teacher.
    """

    monitor = "mean_iou"
    axis, form, dims = 1, "segmentation", 4

    def unlabelled(self, batch: Batch) -> Batch:
        masks = batch.targets
        if isinstance(masks, Tensor) and masks.dim() == 4 and masks.shape[1] == 1:
            return batch._replace(targets=masks.squeeze(1))
        return batch

    @property
    def _shape(self) -> str:
        return "logits (B, C, H, W)"

    def _figures(self, sums: Sequence[float]) -> Mapping[str, float]:
        found, table = _shared(sums)
        each = [hit / (said + there - hit) for hit, said, there in table if said + there]
        return {**found, "mean_iou": math.fsum(each) / len(each)}


def _row(output: Tensor, targets: Tensor, teacher: Tensor | None, *, axis: int, ignored: int) -> Tensor:
    """What `position_sums` gives; then by class hits, predictions and labels."""
    sums, chosen = position_sums(output, targets, teacher, axis=axis, ignored=ignored)
    known = targets != ignored
    hit, classes = (chosen == targets) & known, output.shape[axis]
    table = [torch.bincount(some.flatten(), minlength=classes) for some in (chosen[hit], chosen[known], targets[known])]
    return torch.cat([sums, torch.stack(table).to(sums.dtype).flatten()])


def position_sums(
    output: Tensor, targets: Tensor, teacher: Tensor | None, *, axis: int, ignored: int
) -> tuple[Tensor, Tensor]:
    """(6,): samples, positions, right ones, their cross-entropy, those agreed on, those asked about; and each
    position's likeliest class.
    """
    classes = output.shape[axis]
    chosen, known = likeliest(output, axis), targets != ignored
    dtype = wide(output.device)
    in_range(targets, classes, known, what="held-out label")
    logits = output.movedim(axis, 1)
    loss = F.cross_entropy(logits, targets.long(), ignore_index=ignored, reduction="sum").to(dtype)
    agreed = known & False if teacher is None else (chosen == likeliest(teacher, axis)) & known
    hit = (chosen == targets) & known
    counts = [known.sum(), hit.sum(), loss, agreed.sum(), known.sum() * (teacher is not None)]
    return torch.stack([loss.new_tensor(float(len(output))), *(one.to(dtype) for one in counts)]), chosen


def position_figures(sums: Sequence[float]) -> dict[str, float]:
    """The figures of such sums.

    Raises:
        RequestError: No position has a label.
    """
    samples, positions, right, loss, agreed, asked = sums
    if not positions:
        raise RequestError("nothing to evaluate: no position has a label")
    return {
        "samples": samples,
        "accuracy": right / positions,
        "loss": loss / positions,
        "agreement": agreed / asked if asked else math.nan,
    }


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy in nats, finite."""
    return math.exp(min(loss, 700.0))


def _shared(sums: Sequence[float]) -> tuple[dict[str, float], list[tuple[float, float, float]]]:
    """The figures that all have, and of each class its hits, predictions and labels."""
    figures, table = position_figures(sums[:SUMS]), sums[SUMS:]
    classes = len(table) // 3
    columns = table[:classes], table[classes : 2 * classes], table[2 * classes :]
    return figures, list(zip(*columns, strict=True))
