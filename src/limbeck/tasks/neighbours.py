"""Whether a student's embeddings rank pairs of samples, and the neighbours of a sample, as its teacher's do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.tasks.metrics import Figures
from limbeck.types import Targets

SAMPLES = 4096
"""So many samples are compared with one another, the first ones; those behind them count in no figure of ranks."""
PAIRED = 2048
"""The pairs of so many of them are ranked."""
NEAREST = 10
"""The neighbours that are looked at."""
_PIECE = 512


class Neighbours:
    """Two figures over all samples, not within batches; the similarity of two samples is their cosine.

    "spearman": Spearman's rank correlation, over pairs of samples, of the student's and the teacher's similarities.
    "top10_overlap": the share of a sample's ten nearest neighbours by the teacher that are among its ten by the
    student; only where there are more than ten others.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._held = 0

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        assert teacher is not None
        room = SAMPLES - self._held
        if room > 0:
            own, theirs = (one[:room].detach().float().cpu().clone() for one in (output, teacher))
            self._pairs.append((own, theirs))
            self._held += len(own)

    def state(self) -> Any:
        return [(own.numpy(), theirs.numpy()) for own, theirs in self._pairs]

    def figures(self, states: Sequence[Any]) -> Figures:
        pairs = [pair for state in states for pair in state]
        if not pairs:
            return {}
        own, theirs = (
            F.normalize(torch.from_numpy(np.concatenate([pair[at] for pair in pairs])[:SAMPLES]), dim=1)
            for at in (0, 1)
        )
        found = {"spearman": spearman(own[:PAIRED], theirs[:PAIRED])}
        if len(own) > NEAREST + 1:
            found["top10_overlap"] = overlap(own, theirs, NEAREST)
        return {name: value for name, value in found.items() if not math.isnan(value)}


def spearman(own: Tensor, theirs: Tensor) -> float:
    """The rank correlation of two sets of vectors' products, over all pairs; NaN where one has no order.

    Args:
        own: (N, D) vectors.
        theirs: (N, D') vectors of the same samples.
    """
    from scipy.stats import rankdata

    at = torch.triu_indices(len(own), len(own), 1)
    x, y = (rankdata((one @ one.T)[at[0], at[1]].numpy()) for one in (own, theirs))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def overlap(own: Tensor, theirs: Tensor, nearest: int) -> float:
    """The share of each sample's nearest others by their products that two sets of vectors have in common.

    Args:
        own: (N, D) vectors.
        theirs: (N, D') vectors of the same samples.
        nearest: How many others are looked at, fewer than N.
    """
    shared = 0
    for start in range(0, len(own), _PIECE):
        first, second = (_nearest(one, start, nearest) for one in (own, theirs))
        shared += int((first[:, :, None] == second[:, None, :]).sum())
    return shared / (nearest * len(own))


def _nearest(vectors: Tensor, start: int, nearest: int) -> Tensor:
    """(P, nearest) the numbers of the others that are nearest to some samples from `start` on."""
    products = vectors[start : start + _PIECE] @ vectors.T
    rows = torch.arange(len(products))
    products[rows, rows + start] = -math.inf
    return products.topk(nearest).indices
