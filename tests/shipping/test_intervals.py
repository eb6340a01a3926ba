"""Intervals against values computed by hand, and against how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from limbeck.shipping.intervals import median, paired, wilson


def test_wilson_by_hand() -> None:
    # p = 0.9, n = 10, z = 1.96: (0.9 + 0.19208 ± 1.96 √(0.009 + 0.0096040)) / 1.38416
    half = 1.96 * math.sqrt(0.009 + 0.009604)
    low, high = wilson(9, 10, z=1.96)
    assert low == pytest.approx((1.09208 - half) / 1.38416, abs=1e-6)
    assert high == pytest.approx((1.09208 + half) / 1.38416, abs=1e-6)


def test_wilson_stays_a_share_at_its_ends() -> None:
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1
    # With all right of n, the lower end is n / (n + z²).
    assert wilson(360, 360, z=1.96)[0] == pytest.approx(360 / 363.8416)


def test_paired_by_hand() -> None:
    # Ten samples: 3 right by ours alone, 1 by theirs alone. p = 4/12, q = 2/12, d = 1/6.
    ours = [True, True, True, False, True, True, True, True, True, True]
    theirs = [False, False, False, True, True, True, True, True, True, True]
    difference, (low, high) = paired(ours, theirs, z=2)
    half = 2 * math.sqrt((0.5 - 1 / 36) / 12)
    assert difference == pytest.approx(0.2)
    assert (low, high) == pytest.approx((1 / 6 - half, 1 / 6 + half))
    assert paired([True] * 50, [True] * 50)[1][1] > 0


def test_paired_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        draws = generator.random(300)
        # Ours alone with 0.10, theirs alone with 0.06: the difference is 0.04.
        _, (low, high) = paired((draws < 0.10) | (draws > 0.2), ((draws > 0.10) & (draws < 0.16)) | (draws > 0.2))
        held += low <= 0.04 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_median_has_the_interval_of_order_statistics() -> None:
    # Of 10 values the second to the ninth: P(Binomial(10, ½) ≤ 1) = 11/1024, and with one more 56/1024 > 0.025.
    assert median([float(n) for n in range(1, 11)]) == (5.5, (2.0, 9.0))
    assert median([3.0]) == (3.0, (3.0, 3.0))
