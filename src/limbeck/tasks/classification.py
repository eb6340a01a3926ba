"""Classification: one class a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.shapes import in_range
from limbeck.models.probabilities import are_probabilities
from limbeck.tasks.class_order import behind_sigmoid, doubts, refuse_probabilities
from limbeck.tasks.labels import check_classes, hard_labels, likeliest, of_classes, two_classes
from limbeck.tasks.metrics import Metrics, Sums, wide
from limbeck.tasks.task import Task
from limbeck.tasks.weights import Weights
from limbeck.types import IGNORED, Batch, Targets, labelled

BINS = 15
"""Bins of equal width for the calibration error; a confidence of 1 has one more to itself."""


class Classification(Task):
    """Logits (B, C), and class indices (B,) or class probabilities (B, C) as targets; −100 is no label.

    The loss is cross-entropy. One logit a sample, (B, 1) or (B,), is that of the second of two classes: it is taken as
    the logits (0, z), whose softmax is its sigmoid, for student and teacher alike, and targets may then be
    floats (B,) or (B, 1): probabilities of the second class, such as 0 and 1.

    Args:
        class_weights: (C,) weights of the classes in the loss on labels, as in torch's cross-entropy.
        label_smoothing: Share of the target that is spread evenly over all classes.
        **others: As for every `Task`.

    Metrics: "accuracy" (the monitor, max), "top5" with more than five classes, "loss" (cross-entropy in nats, without
    weights or smoothing), "calibration_error" (expected, over 15 bins of equal width), and "agreement" with a teacher:
    the share of samples, with a label or without, on which both have the same first choice.
    """

    monitor = "accuracy"
    mode = "max"
    running = "accuracy"
    classifies = True

    def __init__(
        self, *, class_weights: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0, **others: Any
    ) -> None:
        super().__init__(**others)
        if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing < 1:
            raise RequestError(f"label_smoothing lies from 0 to below 1, not at {label_smoothing!r}")
        self.class_weights = Weights(class_weights)
        self.label_smoothing = label_smoothing

    def unlabelled(self, batch: Batch) -> Batch:
        if batch.targets is None:
            return batch._replace(targets=torch.full((batch.size,), IGNORED, device=batch.device))
        column = isinstance(batch.targets, Tensor) and batch.targets.dim() == 2 and batch.targets.shape[1] == 1
        return batch._replace(targets=batch.targets.squeeze(1)) if column and self.own_loss is None else batch

    def output(self, raw: Any, classes: int | None = None) -> Tensor:
        return two_classes(super().output(raw, classes))

    def check_output(self, output: Tensor) -> None:
        if output.dim() != 2:
            raise RequestError(
                f"a classifier gives logits (B, C), and the student gives {tuple(output.shape)}; say what is learned, "
                "such as task=TokenClassification() or Segmentation() (in a recipe task: segmentation)"
            )

    def check(self, output: Tensor, targets: Targets) -> None:
        check_classes(output, of_classes(targets, output.shape[1]))

    def check_end(self, output: Tensor) -> None:
        if self.own_loss is None and are_probabilities(output):
            raise RequestError(
                "the student ends in probabilities (rows ≥ 0 of sum 1), and the losses take logits: leave its softmax "
                "out"
            )

    def check_teacher(self, output: Tensor, targets: Targets, *, learned: bool) -> list[str]:
        refuse_probabilities(output)
        return [*behind_sigmoid(output), *doubts(output, targets, learned=learned)]

    def known(self, targets: Targets) -> Tensor:
        return labelled(targets)

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        if self.own_loss is not None:
            return self.own_loss(output, targets)
        weights = self.class_weights.beside(output)
        wanted = of_classes(targets, output.shape[1])
        return F.cross_entropy(output, wanted, weights, label_smoothing=self.label_smoothing)

    def score(self, output: Tensor, targets: Targets) -> Tensor:
        labels = hard_labels(targets)
        return torch.stack([likeliest(output) == labels, labelled(labels)])

    def own_metrics(self) -> Metrics:
        return Sums(_row, _figures)


def counts_samples(task: Task) -> bool:
    """Whether a task's monitor is a share of samples, each of which is right or wrong as a whole."""
    return isinstance(task, Classification) and task.monitor == "accuracy"


def _row(logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """Samples with a label; their cross-entropy; those whose label is the likeliest class, or among the five likeliest;
    of all samples those on which the teacher agrees, and those that a teacher was asked about; then, by bin of
    confidence, the confidences, and the samples whose label is the likeliest class.
    """
    labels = hard_labels(targets).long()
    known = labelled(labels)
    in_range(labels, logits.shape[1], known, what="held-out label")
    first = likeliest(logits)
    right = first == labels
    asked = torch.full_like(known, teacher is not None)
    agreed = asked if teacher is None else first == likeliest(two_classes(teacher))
    top5 = (logits.topk(min(5, logits.shape[1])).indices == labels[:, None]).any(-1)
    dtype = wide(logits.device)
    counts = torch.stack([known, right, top5, agreed, asked]).sum(1).to(dtype)
    loss = F.cross_entropy(logits, labels, reduction="sum").to(dtype)
    sure = logits.softmax(-1).amax(-1)
    edges = torch.linspace(0, 1, BINS + 1, device=sure.device)
    bins = torch.bucketize(sure, edges, right=True) - 1
    table = torch.zeros(2, BINS + 1, dtype=dtype, device=sure.device)
    table.index_add_(1, bins, torch.stack([sure * known, right.to(sure.dtype)]).to(dtype))
    if logits.shape[1] <= 5:
        counts[2] = math.nan  # no figure where five classes are all
    return torch.cat([counts[:1], loss[None], counts[1:], table.flatten()])


def _figures(sums: Sequence[float]) -> Mapping[str, float]:
    samples, loss, top1, top5, agreed, asked, *bins = sums
    if not samples:
        raise RequestError("nothing to evaluate: no sample has a label")
    sure, right = bins[: len(bins) // 2], bins[len(bins) // 2 :]
    return {
        "samples": samples,
        "accuracy": top1 / samples,
        "top5": top5 / samples,
        "loss": loss / samples,
        "calibration_error": math.fsum(abs(a - b) for a, b in zip(sure, right, strict=True)) / samples,
        "agreement": agreed / asked if asked else math.nan,
    }
