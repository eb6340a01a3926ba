"""Tokens drawn from a teacher's distributions: the same for a sample and position, whatever is asked beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

NUMBERS = 2**22
"""Probabilities that are added up at once."""
_STEP, _FIRST, _SECOND = (np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""The constants of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""


def starts(index: Tensor, positions: int, view: int, seed: int = 0) -> Tensor:
    """(B, positions) numbers in [0, 1), each a function of seed, view, sample and position alone."""
    with np.errstate(over="ignore"):
        state = _mixed(np.uint64(seed % 2**64) + np.uint64(view) * _STEP)
        of_sample = _mixed(state + index.cpu().numpy().astype(np.uint64)[:, None] * _STEP)
        found = _mixed(of_sample + np.arange(positions, dtype=np.uint64)[None, :] * _STEP)
    return torch.from_numpy((found >> np.uint64(11)).astype(np.float64) / 2**53)


def draw(log_probs: Tensor, draws: int, power: float, start: Tensor) -> tuple[Tensor, Tensor]:
    """K classes from each of some distributions, and the logarithms of their weights.

    The distribution that is drawn from is q ∝ p^power. The K draws are the classes in which the numbers
    (start + k) / K, k = 0 … K − 1, fall among the cumulated q. A class's count has the expectation K q, as with K
    independent draws with replacement, and a smaller variance: it is K q rounded up or down.

    Args:
        log_probs: (N, V) log p.
        draws: K.
        power: 1 draws from p itself; below 1 more of the tail, at weights that vary.
        start: (N,) uniform numbers in [0, 1).

    Returns:
        (N, K) indices in ascending order, and (N, K) log (p / q): Σ exp(log weight) / K · (1 at the index) has the
        expectation p.
    """
    found = []
    rows = max(1, NUMBERS // log_probs.shape[-1])
    for begin in range(0, len(log_probs), rows):
        some, first = log_probs[begin : begin + rows], start[begin : begin + rows]
        log_p = some.double()
        log_q = (power * log_p).log_softmax(-1)
        sums = log_q.exp().cumsum(-1)
        points = (torch.arange(draws, device=some.device) + first.to(some.device).unsqueeze(-1)) / draws
        at = torch.searchsorted(sums, points * sums[:, -1:], right=True).clamp(max=some.shape[-1] - 1)
        found.append((at, (log_p - log_q).gather(-1, at).float()))
    indices, weights = (torch.cat(one) for one in zip(*found, strict=True))
    return indices, weights


def _mixed(state: Any) -> Any:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))
