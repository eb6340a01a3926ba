"""Whether embeddings rank the text that fits a query before others, and as the teacher's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks.metrics import Figures
from limbeck.types import Targets

SAMPLES = 12_288
"""So many texts are held, the first ones; those behind them count in no figure."""


class Triplets:
    """Two figures over queries with a text that fits and others, each other text a triplet; scores are dot products.

    "triplet_accuracy": the share of triplets in which the text that fits scores higher than the other one.
    "triplet_agreement": the share in which student and teacher say the same of that.

    Args:
        texts: How many texts belong together: the query, the one that fits, and the others. Targets number all texts
            from 0, so that batches and processes may hold parts of them.
    """

    def __init__(self, texts: int) -> None:
        self._texts = texts
        self._held: list[tuple[Any, Any, Any]] = []
        self._count = 0

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        if not isinstance(targets, Tensor) or teacher is None:
            raise RequestError("triplets are measured beside a teacher, with targets that number the texts from 0")
        if self._count < SAMPLES:
            self._held.append((output.detach().float().cpu(), teacher.detach().float().cpu(), targets.cpu().clone()))
            self._count += len(output)

    def state(self) -> Any:
        return [tuple(one.numpy() for one in some) for some in self._held]

    def figures(self, states: Sequence[Any]) -> Figures:
        held = [some for state in states for some in state]
        if not held:
            return {}
        numbers = np.concatenate([some[2] for some in held])
        numbers, first = np.unique(numbers, return_index=True)
        groups = numbers // self._texts
        whole = np.isin(groups, _whole(groups, self._texts))
        margins = [_margins(np.concatenate([some[at] for some in held])[first[whole]], self._texts) for at in (0, 1)]
        if not margins[0].size:
            return {}
        own, theirs = margins
        return {
            "triplet_accuracy": float((own > 0).mean()),
            "triplet_agreement": float(((own > 0) == (theirs > 0)).mean()),
        }


def _whole(groups: NDArray[Any], texts: int) -> NDArray[Any]:
    """The groups all of whose texts are there."""
    found, counts = np.unique(groups, return_counts=True)
    whole: NDArray[Any] = found[counts == texts]
    return whole


def _margins(vectors: NDArray[Any], texts: int) -> NDArray[Any]:
    """(G, K) by how much the text that fits scores higher than each other one; of (G · texts, D) vectors."""
    query, *others = torch.from_numpy(vectors).double().view(-1, texts, vectors.shape[1]).unbind(1)
    scores = torch.stack([(query * one).sum(1) for one in others], 1)
    return (scores[:, :1] - scores[:, 1:]).numpy()
