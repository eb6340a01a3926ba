"""Random splits that keep the shares of classes, the very ones that scikit-learn draws, without its import.

scikit-learn takes twice as long as torch to import, and recorded figures hold for its splits.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def split(samples: int, fraction: float, seed: int, classes: Indices | None = None) -> tuple[Indices, Indices]:
    """Draw two parts of so many samples, as `sklearn.model_selection.train_test_split` does.

    Args:
        samples: How many there are.
        fraction: Share of the second part, between 0 and 1; rounded up to whole samples.
        seed: What the draw is a function of, below 2³².
        classes: Each sample's class, (samples,), whose shares both parts keep; None draws from all alike.

    Returns:
        The indices of the first and of the second part, in the order in which they were drawn.

    Raises:
        ValueError: A part would be empty, or smaller than the number of classes.
    """
    second = math.ceil(fraction * samples)
    first = samples - second
    if not first or not second:
        raise ValueError(f"one part would have all {samples:,} samples")
    draw = np.random.RandomState(seed)
    if classes is None:
        order = draw.permutation(samples)
        return order[second:], order[:second]
    return _by_class(classes, first, second, draw)


def _by_class(classes: Indices, first: int, second: int, draw: np.random.RandomState) -> tuple[Indices, Indices]:
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if counts.min() < 2 or min(first, second) < len(counts):
        raise ValueError(f"both parts need a sample of each of {len(counts):,} classes")
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    firsts = _shares(counts, first, draw)
    seconds = _shares(counts - firsts, second, draw)
    parts: tuple[list[Indices], list[Indices]] = ([], [])
    for indices, n, m in zip(members, firsts, seconds, strict=True):
        shuffled = indices[draw.permutation(len(indices))]
        parts[0].append(shuffled[:n])
        parts[1].append(shuffled[n : n + m])
    return draw.permutation(np.concatenate(parts[0])), draw.permutation(np.concatenate(parts[1]))


def _shares(counts: Indices, total: int, draw: np.random.RandomState) -> Indices:
    """`total` divided in proportion to `counts`: rounded down, and the rest to the largest remainders.

    Among equal remainders it is drawn who gets one.
    """
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders, left = exact - shares, int(total - shares.sum())
    for value in np.unique(remainders)[::-1]:
        if not left:
            break
        equal = np.flatnonzero(remainders == value)
        given = min(len(equal), left)
        shares[draw.choice(equal, size=given, replace=False)] += 1
        left -= given
    whole: Indices = shares.astype(np.int64)
    return whole
