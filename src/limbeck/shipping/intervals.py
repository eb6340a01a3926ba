"""How sure a figure is: of a share of samples, of a difference between two models on the same samples, of a ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

Interval = tuple[float, float]
Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def wilson(hits: int, samples: int, z: float = Z) -> Interval:
    """Wilson's score interval of a share.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n) with p = hits / n.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    >>> [round(end, 4) for end in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    share, spread = hits / samples, z * z / samples
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / samples + spread / (4 * samples))
    return max((middle - half) / (1 + spread), 0.0), min((middle + half) / (1 + spread), 1.0)


def paired(ours: ArrayLike, theirs: ArrayLike, z: float = Z) -> tuple[float, Interval]:
    """The difference of two shares over the same samples, and its interval.

    Bonett and Price's adjusted interval: of n samples b are hits of ours alone and c of theirs alone;
    d ± z √((p + q − d²) / (n + 2)) with p = (b + 1)/(n + 2), q = (c + 1)/(n + 2), d = p − q. Unlike the plain normal
    interval it has a width where no sample differs.

    Args:
        ours: (N,) bool.
        theirs: (N,) bool, of the same samples in the same order.

    Returns:
        (b − c) / n, and the interval.

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", Journal of Educational and Behavioral Statistics 2012.
    """
    a, b = np.asarray(ours, dtype=bool), np.asarray(theirs, dtype=bool)
    samples, only_ours, only_theirs = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    p, q = (only_ours + 1) / (samples + 2), (only_theirs + 1) / (samples + 2)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (samples + 2))
    return (only_ours - only_theirs) / samples, (p - q - half, p - q + half)


def jackknife(whole: float, without: Sequence[float]) -> Interval:
    """The interval of a figure of all samples, from what it is without each of G groups of samples.

    whole ± t √((G − 1)/G Σ (θ₍g₎ − θ̄)²) with Student's t of G − 1 degrees of freedom: the delete-a-group jackknife.

    Source: Kott, "The delete-a-group jackknife", Journal of Official Statistics 2001.

    >>> [round(end, 3) for end in jackknife(2.5, [3.0, 2.666667, 2.333333, 2.0])]  # the mean of 1, 2, 3 and 4
    [0.446, 4.554]
    """
    from scipy import stats

    values, count = np.asarray(without, dtype=float), len(without)
    spread = math.sqrt((count - 1) / count * float(((values - values.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.975, count - 1)) * spread
    return whole - half, whole + half


def median(values: Sequence[float]) -> tuple[float, Interval]:
    """The median and its 95 % interval by order statistics, which assumes no distribution; few values give their range.

    Source: David and Nagaraja, "Order Statistics", chapter 7.1.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=float))
    below = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return float(np.median(ordered)), (float(ordered[below]), float(ordered[len(ordered) - 1 - below]))
