"""A trial is ended early by pairs of one epoch with the best so far; expected values are computed by hand."""

from __future__ import annotations

import math

import pytest

from limbeck.tuning.budget import Budget, Spent
from limbeck.tuning.pruning import hopeless, lead_by_chance


def test_who_lies_behind_and_does_not_gain_has_lost() -> None:
    best = [0.5 + 0.02 * epoch for epoch in range(20)]
    behind = [score - 0.2 for score in best]
    # Every trial has a quarter of the epochs: 5 of 20.
    assert [hopeless(behind[:n], best, 20) for n in range(1, 8)] == [False] * 4 + [True] * 3


def test_who_catches_up_fast_enough_goes_on() -> None:
    best, epochs = [0.9] * 20, 20
    # After 8 epochs 0.24 behind. Gaining 0.021 an epoch it ends ahead, gaining 0.01 it ends 0.12 behind.
    fast = [0.9 - 0.24 - 0.021 * (8 - n) for n in range(1, 9)]
    slow = [0.9 - 0.24 - 0.01 * (8 - n) for n in range(1, 9)]
    assert not hopeless(fast, best, epochs)
    assert hopeless(slow, best, epochs)


def test_one_epoch_ahead_within_the_window_is_no_loss() -> None:
    best = [0.8] * 20
    behind = [0.6] * 10
    assert hopeless(behind, best, 20)
    # A fifth of 20 epochs is the window: the last four.
    assert not hopeless([*behind[:7], 0.81, *behind[8:]], best, 20)
    assert hopeless([*behind[:5], 0.81, *behind[6:]], best, 20)


def test_of_losses_the_lower_one_is_ahead() -> None:
    assert hopeless([2.0] * 6, [1.0] * 20, 20, mode="min")
    assert not hopeless([1.0] * 6, [2.0] * 20, 20, mode="min")


def test_a_lead_that_chance_can_give_ends_nothing() -> None:
    # Accuracies 0.90 and 0.89 on 100 samples: √((0.10 + 0.11) / 100) = 0.0458 is more than the 0.01 between them.
    assert lead_by_chance(0.90, 0.89, 100) == pytest.approx(math.sqrt(0.21) / 10)
    assert hopeless([0.89] * 6, [0.90] * 20, 20)
    assert not hopeless([0.89] * 6, [0.90] * 20, 20, samples=100)
    assert hopeless([0.89] * 6, [0.90] * 20, 20, samples=100_000)


def test_the_last_epoch_is_never_saved() -> None:
    assert not hopeless([0.1] * 4, [0.9] * 4, 4)
    assert hopeless([0.1] * 3, [0.9] * 4, 4)
    assert not hopeless([0.1], [0.9], 1)
    assert not hopeless([0.1] * 6, [0.9] * 5, 20), "the best so far stopped earlier: there is nothing to compare with"


def test_everybody_gets_as_many_trials() -> None:
    budget, spent = Budget(3), {"baseline": Spent(0, 0), "kd": Spent(0, 0), "dkd": Spent(0, 0)}
    order = []
    while (name := budget.due(spent)) is not None:
        order.append(name)
        spent[name] = Spent(spent[name].trials + 1, spent[name].seconds + len(name))
    assert order == ["baseline", "kd", "dkd"] * 3


def test_time_is_shared_and_a_round_is_finished() -> None:
    budget = Budget.shared(100, minutes=1, contenders=2)
    assert budget == Budget(100, 30.0)
    spent, seconds = {"baseline": Spent(0, 0), "kd": Spent(0, 0)}, {"baseline": 4.0, "kd": 7.0}
    while (name := budget.due(spent)) is not None:
        spent[name] = Spent(spent[name].trials + 1, spent[name].seconds + seconds[name])
    # The slower one has used its 30 seconds up after 5 trials, and the other one has 5 too.
    assert {name: one.trials for name, one in spent.items()} == {"baseline": 5, "kd": 5}
