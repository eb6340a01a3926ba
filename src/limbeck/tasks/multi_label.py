"""Several labels a sample, each of them there or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks.class_order import is_behind_sigmoid
from limbeck.tasks.metrics import Joined, Kept, Metrics, Sums, wide
from limbeck.tasks.task import Task
from limbeck.tasks.weights import Weights
from limbeck.types import Targets


class MultiLabel(Task):
    """Logits (B, C), and targets (B, C) of 0 and 1, or of probabilities; a logit above 0 predicts its label.

    The loss is the mean binary cross-entropy over samples and labels.

    Args:
        positive_weights: (C,) weights of the positive targets in the loss, as torch's `pos_weight`.
        **others: As for every `Task`.

    Metrics: "mean_average_precision" (the monitor, max; over labels that at least one sample has), "f1" (over all
    decisions), "macro_f1" (mean over labels), "accuracy" (of all decisions), "exact_match" (samples with all labels
    right), "loss", and "agreement" with a teacher: the share of decisions on which both agree.
    """

    monitor = "mean_average_precision"
    mode = "max"
    running = "accuracy"

    def __init__(self, *, positive_weights: Sequence[float] | Tensor | None = None, **others: Any) -> None:
        super().__init__(**others)
        self.positive_weights = Weights(positive_weights)

    def check_output(self, output: Tensor) -> None:
        if output.dim() != 2:
            raise RequestError(f"a multi-label student gives logits (B, C), and this one gives {tuple(output.shape)}")

    def check(self, output: Tensor, targets: Targets) -> None:
        if not isinstance(targets, Tensor) or targets.shape != output.shape:
            given = f"have the shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else "are none"
            raise RequestError(
                f"multi-label targets are 0 or 1 for each of the student's {output.shape[1]} labels, of shape "
                f"{tuple(output.shape)}; these {given}"
            )
        if bool(((targets < 0) | (targets > 1)).any()):
            raise RequestError("multi-label targets lie between 0 and 1, and these do not")

    def check_end(self, output: Tensor) -> None:
        if self.own_loss is None and is_behind_sigmoid(output):
            raise RequestError(
                "the student gives numbers from 0 to 1 alone, as behind a sigmoid, and the losses take logits: leave "
                "it out"
            )

    def check_teacher(self, output: Tensor, targets: Targets, *, learned: bool) -> list[str]:
        if is_behind_sigmoid(output):
            raise RequestError(
                "the teacher gives numbers from 0 to 1 alone, as behind a sigmoid, and losses take logits: leave it "
                "out, or give a function that returns torch.logit of them"
            )
        return []

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        if self.own_loss is not None:
            return self.own_loss(output, targets)
        weights = self.positive_weights.beside(output)
        return F.binary_cross_entropy_with_logits(output, targets.to(output.dtype), pos_weight=weights)

    def score(self, output: Tensor, targets: Targets) -> Tensor:
        right = ((output > 0) == (targets > 0.5)).sum(1)
        return torch.stack([right, torch.full_like(right, output.shape[1])])

    def own_metrics(self) -> Metrics:
        return Joined([Sums(_row, _figures), Kept(_ranking)])


def _row(logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """Samples; decisions, right ones, loss; samples all right; decisions agreed on, and asked about; then by label true
    positives, false positives and false negatives.
    """
    chosen, there = logits > 0, targets > 0.5
    right = chosen == there
    asked = right.new_zeros(()) if teacher is None else torch.full_like(right, True).sum()
    agreed = right.new_zeros(()) if teacher is None else (chosen == (teacher > 0)).sum()
    loss = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum")
    counts = [len(logits), right.numel(), right.sum(), loss, right.all(1).sum(), agreed, asked]
    dtype = wide(logits.device)
    sums = torch.stack([torch.as_tensor(one, device=logits.device).to(dtype) for one in counts])
    table = torch.stack([chosen & there, chosen & ~there, ~chosen & there]).sum(1).to(dtype)
    return torch.cat([sums, table.flatten()])


def _figures(sums: Sequence[float]) -> Mapping[str, float]:
    samples, decisions, right, loss, exact, agreed, asked, *table = sums
    labels = len(table) // 3
    hits, wrong, missed = table[:labels], table[labels : 2 * labels], table[2 * labels :]
    each = [_f1(*counts) for counts in zip(hits, wrong, missed, strict=True)]
    return {
        "samples": samples,
        "f1": _f1(sum(hits), sum(wrong), sum(missed)),
        "macro_f1": math.fsum(each) / labels,
        "accuracy": right / decisions,
        "exact_match": exact / samples,
        "loss": loss / decisions,
        "agreement": agreed / asked if asked else math.nan,
    }


def _f1(hits: float, wrong: float, missed: float) -> float:
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def _ranking(logits: Tensor, targets: Tensor) -> Mapping[str, float]:
    from sklearn.metrics import average_precision_score

    there = (targets > 0.5).numpy()
    known = there.any(0)
    if not known.any():
        return {"mean_average_precision": math.nan}
    return {"mean_average_precision": float(average_precision_score(there[:, known], logits.numpy()[:, known]))}
