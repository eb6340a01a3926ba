"""Two methods' scores of the same seeds, brought into pairs, with what the test samples add to their error."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from limbeck.compare.intervals import Paired, of_test_samples

Hits = Mapping[int, NDArray[np.bool_]]
"""For each seed (N,): which test samples its student gets right."""


def paired(
    ours: Mapping[int, float],
    theirs: Mapping[int, float],
    our_hits: Hits,
    their_hits: Hits,
    groups: Mapping[int, int] | None = None,
    least: float = 0.0,
) -> Paired | None:
    """The differences ours − theirs over the seeds that both have; None where they share none.

    Args:
        ours: One method's score by seed.
        theirs: The other's.
        our_hits: Which test samples are right, for the same seeds; seeds may lack.
        their_hits: Likewise.
        groups: For each seed the number of its teacher. Seeds of one teacher are no independent draws: their mean is
            one pair.
        least: The standard deviation below which none is taken.
    """
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    by_group: dict[int, list[int]] = {}
    for seed in seeds:
        by_group.setdefault(groups[seed] if groups else seed, []).append(seed)
    pairs = [statistics.mean(ours[seed] - theirs[seed] for seed in some) for some in by_group.values()]
    if not all(seed in our_hits and seed in their_hits for seed in seeds):
        return Paired(pairs, least)
    samples = len(our_hits[seeds[0]])
    if any(len(hits[seed]) != samples for hits in (our_hits, their_hits) for seed in seeds):
        return Paired(pairs, least)
    by_sample = [
        np.mean([our_hits[seed].astype(np.int8) - their_hits[seed] for seed in some], axis=0)
        for some in by_group.values()
    ]
    return Paired(pairs, least, of_test_samples(by_sample), samples)
