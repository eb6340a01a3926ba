"""Embeddings: vectors that a student learns from its teacher alone, without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks.metrics import Joined, Metrics, Sums, wide
from limbeck.tasks.neighbours import Neighbours
from limbeck.tasks.task import Task
from limbeck.tasks.triplets import Triplets
from limbeck.types import Targets


class Embedding(Task):
    """Outputs (B, D), and no labels: nothing reads targets, and there is no baseline.

    Args:
        texts: How many samples that follow one another are a query, a text that fits it and others, as the data set
            text-triples has them; `margin_mse` compares them, and targets number them. None where each is by itself.
        **others: As for every `Task`.

    Metrics, all beside a teacher: "similarity" (the monitor, max): Pearson's correlation, over all pairs of samples
    within the batches, of the students' and the teacher's cosine similarities, for which D may differ; "cosine", the
    mean cosine of a sample's two vectors, where D is the same; and "spearman" and "top10_overlap", over all samples,
    the first 4,096 of more (`limbeck.tasks.neighbours`). With `texts`, "triplet_accuracy" and "triplet_agreement" too
    (`limbeck.tasks.triplets`).
    """

    monitor = "similarity"
    mode = "max"
    labelled = False

    def __init__(self, *, texts: int | None = None, **others: Any) -> None:
        super().__init__(**others)
        if texts is not None and texts < 3:
            raise RequestError(f"texts: {texts}, and a query, a text that fits and another one are 3")
        self.texts = texts
        self.loss_options = {} if texts is None else {"texts": texts}

    def check_output(self, output: Tensor) -> None:
        if output.dim() != 2:
            raise RequestError(f"an embedding is (B, D), and the student gives {tuple(output.shape)}")

    def check(self, output: Tensor, targets: Targets) -> None:
        raise RequestError("an embedding has no labels to learn from: set task_weight to 0, and give a term")

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        raise RequestError("an embedding has no loss on labels: set task_weight to 0, and give a term")

    def own_metrics(self) -> Metrics:
        triplets = [] if self.texts is None else [Triplets(self.texts)]
        return Joined([_Similarities(_row, _figures), Neighbours(), *triplets])


class _Similarities(Sums):
    """Sums whose rows are functions of a batch as a whole, so that batches are never joined."""

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        if teacher is None:
            raise RequestError("an embedding is measured beside its teacher, and none was given for the held-out data")
        super().update(output, None, teacher)
        self._count()


def _row(output: Tensor, targets: Targets, teacher: Tensor | None) -> Tensor:
    """Samples; their cosines, and for how many there is one; pairs, and the sums of x, y, x², y² and xy over them."""
    assert teacher is not None
    dtype = wide(output.device)
    own, theirs = (F.normalize(one.to(dtype), dim=1) for one in (output, teacher))
    same = own.shape == theirs.shape
    at = torch.triu_indices(len(own), len(own), 1, device=own.device)
    x, y = ((one @ one.T)[at[0], at[1]] for one in (own, theirs))
    zero = own.new_zeros(())
    cosines = (own * theirs).sum() if same else zero
    sums = [zero + len(own), cosines, zero + (len(own) if same else 0), zero + len(x)]
    return torch.stack([*sums, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def _figures(sums: Sequence[float]) -> Mapping[str, float]:
    samples, cosines, compared, pairs, x, y, xx, yy, xy = sums
    spread = (pairs * xx - x * x) * (pairs * yy - y * y)
    return {
        "samples": samples,
        "similarity": (pairs * xy - x * y) / math.sqrt(spread) if spread > 0 else math.nan,
        "cosine": cosines / compared if compared else math.nan,
    }
