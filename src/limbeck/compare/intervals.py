"""How sure a difference in pairs of one seed is: its error from seeds and test samples, and its interval."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 1000
"""Beyond so many seeds no number is given."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """The differences of one method to another, in pairs.

    d̄ = mean(d₁ … dₙ),  SE² = s²/n + v,  ν = SE⁴ / ((s²/n)²/(n−1) + v²/(N−1))

    s² is the variance of the pairs. v is the variance that the mean has because the N test samples are a draw too
    (`of_test_samples`); ν are the degrees of freedom of SE², by Welch and Satterthwaite. Where v is not known, it is
    left out: then ν = n−1, and the difference is one on this very test set.

    Attributes:
        pairs: (n,), one a seed; where the teacher varies, one a teacher.
        least: The standard deviation below which no s is taken.
        test_variance: v; 0 where it is not known.
        samples: N.

    Source: Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics 1946; seeds
    and samples as crossed random effects: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007.
    """

    pairs: Sequence[float]
    least: float = 0.0
    test_variance: float = 0.0
    samples: int = 0

    @property
    def mean(self) -> float:
        """d̄."""
        return statistics.mean(self.pairs)

    @property
    def spread(self) -> float:
        """s, of two pairs or more."""
        return max(statistics.stdev(self.pairs), self.least)

    def interval(self, error: float) -> Interval | None:
        """d̄ ± t(1 − error/2, ν) · SE; None of a single pair."""
        if len(self.pairs) < 2:
            return None
        half = float(half_width(self.pairs, error, self.least, self.test_variance, self.samples))
        return self.mean - half, self.mean + half


def half_width(
    pairs: ArrayLike, error: float, least: float = 0.0, test_variance: float = 0.0, samples: int = 0
) -> NDArray[np.float64]:
    """t(1 − error/2, ν) · SE of `Paired`, for any number of comparisons at once.

    Args:
        pairs: (…, n) with n of 2 or more.
        error: 1 − the interval's confidence.
        least: As in `Paired`, and so are the others.

    Returns:
        (…).
    """
    values = np.asarray(pairs, dtype=float)
    count = values.shape[-1]
    of_seeds = np.maximum(values.std(-1, ddof=1), least) ** 2 / count
    freedom = _freedom(of_seeds, count, test_variance, samples)
    found: NDArray[np.float64] = quantile(1 - error / 2, freedom) * np.sqrt(of_seeds + test_variance)
    return found


def of_test_samples(differences: ArrayLike) -> float:
    """The variance that a mean difference has because the test samples are a draw.

    v = var_j(mean_i d_ij) / N

    Args:
        differences: (n, N) of seeds and test samples, such as right (1) or wrong (0) of one method minus the other's.

    The part of it that is not the samples' alone but that of seed and sample together stands in s²/n too: the sum of
    both is never too small.
    """
    by_sample = np.asarray(differences, dtype=float).mean(0)
    return float(by_sample.var(ddof=1) / len(by_sample)) if len(by_sample) > 1 else 0.0


def seeds_needed(found: Paired, difference: float, error: float, power: float = POWER) -> int | None:
    """How many pairs show a difference of this size with this power, if they spread as these do.

    The smallest n with P(|T| > t(1 − error/2, ν)) ≥ power, T noncentral with δ = difference / √(s²/n + v).

    Args:
        found: Two pairs or more.
        difference: The size that is to be shown, in the score's unit.
        error: 1 − the confidence of the interval that must exclude 0.
        power: Share of comparisons that show it.

    Returns:
        None where no number up to `MOST_SEEDS` does: the test set is too small for it, or the spread too wide.
    """
    from scipy import stats

    count = np.arange(2, MOST_SEEDS + 1)
    of_seeds = found.spread**2 / count
    freedom = _freedom(of_seeds, count, found.test_variance, found.samples)
    with np.errstate(all="ignore"):
        shift = abs(difference) / np.sqrt(of_seeds + found.test_variance)
        beyond = stats.nct.sf(stats.t.ppf(1 - error / 2, freedom), freedom, np.minimum(shift, 30.0))
    enough = np.flatnonzero(beyond >= power)
    return int(count[enough[0]]) if len(enough) else None


def quantile(level: float, freedom: ArrayLike) -> NDArray[np.float64]:
    """Student's t."""
    from scipy import special

    return np.asarray(special.stdtrit(freedom, level))


def _freedom(of_seeds: ArrayLike, count: ArrayLike, test_variance: float, samples: int) -> NDArray[np.float64]:
    """ν."""
    one, less = np.asarray(of_seeds, dtype=float), np.asarray(count) - 1.0
    if not test_variance:
        return less
    return (one + test_variance) ** 2 / (one**2 / less + test_variance**2 / max(samples - 1, 1))
