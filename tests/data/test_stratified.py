"""Splits are those of scikit-learn, index by index."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from limbeck.data.stratified import split


def test_splits_are_scikit_learns() -> None:
    random = np.random.default_rng(0)
    for seed in range(25):
        samples, kinds = int(random.integers(40, 400)), int(random.integers(2, 9))
        # Equal shares, whose remainders are drawn, and unequal ones; labels need not begin with 0.
        even = np.arange(samples) % kinds
        uneven = np.sort(random.integers(0, kinds, samples) ** 2)
        fraction = float(random.choice([0.1, 0.2, 0.25, 1 / 3, 0.5]))
        for classes in (even, uneven, None):
            if classes is not None and np.unique(classes, return_counts=True)[1].min() < 2:
                continue
            ours = split(samples, fraction, seed, classes)
            theirs = train_test_split(np.arange(samples), test_size=fraction, stratify=classes, random_state=seed)
            for own, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("classes", "fraction"),
    [(None, 0.999), ([0, 0, 0, 1], 0.5), ([0, 1, 2] * 5, 0.1)],
    ids=["empty", "alone", "few"],
)
def test_what_cannot_be_split_is_refused_by_both(classes: list[int] | None, fraction: float) -> None:
    labels = None if classes is None else np.array(classes)
    samples = 12 if labels is None else len(labels)
    with pytest.raises(ValueError, match="part"):
        split(samples, fraction, 0, labels)
    with pytest.raises(ValueError, match=r"train_size|test_size|least populated|train set will be empty"):
        train_test_split(np.arange(samples), test_size=fraction, stratify=labels, random_state=0)
