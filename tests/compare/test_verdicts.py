"""Differences in pairs: their errors, both intervals, the verdict that the simultaneous one shows, seeds needed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from limbeck.compare import difference, summarise
from limbeck.compare.intervals import Paired, of_test_samples, seeds_needed
from limbeck.compare.pairs import paired
from limbeck.compare.verdicts import Rules, verdict, with_simultaneous
from limbeck.compare.words import ended, needed, procedure
from limbeck.errors import RequestError

ABOUT = {"monitor": "accuracy", "mode": "max"}


def results(scores: list[float], hits: list[np.ndarray] | None = None) -> dict[int, dict[str, Any]]:
    """What summarise takes, of one method."""
    right = [{} if hits is None else {"": one} for one in hits or scores]
    return {seed: {"test": {"accuracy": s}, "hits": right[seed], **ABOUT} for seed, s in enumerate(scores)}


@pytest.mark.parametrize("rivals", [1, 3, 17])
def test_the_verdict_is_what_the_simultaneous_interval_shows(rivals: int) -> None:
    random = np.random.default_rng(rivals)
    shown = set()
    for _ in range(200):
        pairs = list(random.normal(random.choice([-0.02, 0, 0.02]), 0.01, random.integers(2, 7)))
        found = difference(pairs, rivals)
        expected = stats.ttest_1samp(pairs, 0).confidence_interval(1 - 0.05 / rivals)
        low, high = found["simultaneous"]
        assert (low, high) == pytest.approx((expected.low, expected.high))
        assert found["verdict"] == ("better" if low > 0 else "worse" if high < 0 else "no difference shown")
        assert (found["interval"] == found["simultaneous"]) == (rivals == 1)
        shown.add(found["verdict"])
    assert len(shown) == 3 or rivals == 17


def test_of_lower_is_better_the_verdict_turns_round() -> None:
    assert [verdict((0.1, 0.2), mode) for mode in ("max", "min")] == ["better", "worse"]
    assert verdict((-0.1, 0.2), "min") == "no difference shown"


@pytest.mark.parametrize("pairs", [[math.nan] * 3, [math.inf, 1.0, 2.0]], ids=["nan", "inf"])
def test_what_is_no_number_shows_nothing(pairs: list[float]) -> None:
    assert verdict((math.nan, math.nan), "min") == verdict((math.nan, math.nan), "max") == "no difference shown"
    with pytest.raises(RequestError, match="finite numbers"):
        difference(pairs)


def test_rounding_shows_no_difference_and_foretells_no_number_of_seeds() -> None:
    about = {"monitor": "rmse", "mode": "min"}
    results = {
        name: {seed: {"test": {"rmse": value + seed * 1e-12}, **about} for seed in range(3)}
        for name, value in (("baseline", 1.25), ("kd", 1.25 + 1e-9))
    }
    row = summarise(results)["kd"]
    assert row["verdict"] == "no difference shown"
    assert "needed" not in row


def test_of_one_seed_the_test_samples_error_is_mcnemars() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.random(400) < 0.8, random.random(400) < 0.7
    only_ours, only_theirs = (ours & ~theirs).sum(), (theirs & ~ours).sum()
    walds = (only_ours + only_theirs - (only_ours - only_theirs) ** 2 / 400) / 400**2
    assert of_test_samples(ours[None].astype(int) - theirs[None]) == pytest.approx(walds * 400 / 399)


def test_error_and_degrees_of_freedom_by_hand() -> None:
    found = Paired([0.01, 0.03, 0.02], test_variance=4e-5, samples=101)
    of_seeds = 1e-4 / 3
    freedom = (of_seeds + 4e-5) ** 2 / (of_seeds**2 / 2 + 4e-5**2 / 100)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(of_seeds + 4e-5)
    assert found.interval(0.05) == pytest.approx((0.02 - half, 0.02 + half))
    assert Paired([0.01]).interval(0.05) is None


def test_intervals_hold_the_difference_on_all_samples_not_only_on_these() -> None:
    """Simulated: seeds, test samples and both together vary. Intervals of the seeds alone miss the samples' share."""
    random, comparisons, seeds, samples = np.random.default_rng(1), 1000, 4, 200
    holds = {"both": 0, "seeds": 0}
    for _ in range(comparisons):
        by_sample = random.normal(0, 0.3, samples)
        table = random.normal(0, 0.01, (seeds, 1)) + by_sample + random.normal(0, 0.2, (seeds, samples))
        pairs = list(table.mean(1))
        for kind, one in (
            ("both", Paired(pairs, test_variance=of_test_samples(table), samples=samples)),
            ("seeds", Paired(pairs)),
        ):
            low, high = one.interval(0.05) or (0, 0)
            holds[kind] += low <= 0 <= high
    assert holds["both"] / comparisons > 0.94
    assert holds["seeds"] / comparisons < 0.9


def test_hits_of_all_seeds_bring_the_samples_error_in() -> None:
    random = np.random.default_rng(2)
    hits = {name: [random.random(500) < p for _ in range(3)] for name, p in (("baseline", 0.7), ("kd", 0.8))}
    scores = {name: [float(one.mean()) for one in some] for name, some in hits.items()}
    whole = summarise({name: results(scores[name], hits[name]) for name in hits}, Rules(500))["kd"]
    alone = summarise({name: results(scores[name]) for name in hits}, Rules(500))["kd"]
    assert (whole["errors"], alone["errors"]) == (["seeds", "test samples"], ["seeds"])
    by_sample = (np.array(hits["kd"], int) - np.array(hits["baseline"], int)).mean(0)
    pairs = np.subtract(scores["kd"], scores["baseline"])
    of_seeds, of_samples = max(pairs.std(ddof=1), 0.002 / 6**0.5) ** 2 / 3, by_sample.var(ddof=1) / 500
    freedom = (of_seeds + of_samples) ** 2 / (of_seeds**2 / 2 + of_samples**2 / 499)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(of_seeds + of_samples)
    assert whole["interval"] == pytest.approx([pairs.mean() - half, pairs.mean() + half])


def test_seeds_of_one_teacher_are_one_pair() -> None:
    ours, theirs = {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.9}, {0: 0.8, 1: 0.8, 2: 0.6, 3: 0.6}
    found = paired(ours, theirs, {}, {}, groups={0: 0, 1: 1, 2: 0, 3: 1})
    assert found is not None
    assert found.pairs == pytest.approx([0.1, 0.15])
    assert paired(ours, {9: 0.5}, {}, {}) is None


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_are_those_of_power_tables(effect: float, seeds: int) -> None:
    """The paired t-test's sample sizes for 5 % error and 80 % power (Cohen 1988; G*Power gives the same)."""
    pairs = [0.0, math.sqrt(2)]  # of standard deviation 1
    assert seeds_needed(Paired(pairs), effect, 0.05) == seeds
    assert seeds_needed(Paired(pairs), -effect, 0.05) == seeds


def test_a_small_test_set_shows_a_small_difference_with_no_number_of_seeds() -> None:
    found = Paired([0.01, 0.02], test_variance=0.01**2, samples=300)
    assert seeds_needed(found, 0.01, 0.05) is None
    entry = {"difference": 0.0, "needed": {"difference": 0.01, "power": 0.8, "seeds": None}}
    assert needed({"kd": entry}).endswith("of comparisons: kd more than 1,000")


def test_earlier_records_get_the_simultaneous_interval_that_they_would_have_today() -> None:
    random = np.random.default_rng(3)
    content = {name: results(list(random.normal(0.8, 0.01, 4))) for name in ("baseline", "kd", "dist")}
    today = summarise(content)
    before = {
        name: {key: row[key] for key in row if key not in ("simultaneous", "seeds")} for name, row in today.items()
    }
    found = with_simultaneous({"methods": before, "seeds": [0, 1, 2, 3]})
    for name in ("kd", "dist"):
        assert found[name]["simultaneous"] == pytest.approx(today[name]["simultaneous"])
    one = {"baseline": {"seeds": [0]}, "kd": {"seeds": [0], "difference": 0.1, "interval": None}}
    assert with_simultaneous({"methods": one, "seeds": [0]})["kd"]["simultaneous"] is None


def test_epochs_of_students_that_early_stopping_ended_are_said() -> None:
    found = {"baseline": results([0.8, 0.82]), "kd": results([0.85, 0.86])}
    for name, epochs in (("baseline", (7, 9)), ("kd", (12, 30))):
        for seed, count in enumerate(epochs):
            found[name][seed] |= {"epochs": count}
    assert ended({"epochs": 30, "methods": summarise(found)}) == ""
    found["baseline"][0]["stopped_early"] = True
    methods = summarise(found)
    assert (methods["baseline"]["epochs"], methods["kd"]["epochs"]) == ([7, 9], [12, 30])
    said = ended({"epochs": 30, "methods": methods})
    assert said.endswith("of 30 epochs at most the students had, seed by seed: baseline 7, 9; kd 12, 30")


def test_what_is_said_below_a_table() -> None:
    methods = summarise({"baseline": results([0.8, 0.9, 0.85]), "kd": results([0.9, 0.91, 0.92])})
    assert procedure({"methods": methods}) == (
        "verdict: better or worse where the simultaneous 95 % interval excludes 0; they contain the error from seeds, "
        "and hold for these test samples"
    )
    assert needed(methods).startswith("seeds that show a difference of 0.01 in 80% of comparisons: kd ")
    both = {"baseline": {}, "kd": {"difference": 0, "errors": ["seeds", "test samples"]}}
    assert procedure({"methods": both | {"dist": both["kd"]}}).startswith(
        "verdicts: better or worse where the 95 % intervals that hold for all 2 at once exclude 0; they contain the"
    )
