"""python -m benchmarks sequential: how often comparisons that add seeds find a difference where there is none.

Simulated: scores of the baseline and of m methods are normal with one standard deviation, in pairs of one seed. The
verdicts are those that `limbeck compare --until decided` gives: its plan, and its intervals by the same function.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from limbeck.compare.intervals import CONFIDENCE, half_width
from limbeck.compare.sequential import Plan
from limbeck.shipping.intervals import wilson

COMPARISONS = 2000
PLANS = ((1, 3, 10), (3, 3, 10), (3, 3, 20), (10, 3, 20))
"""Methods, first and most seeds."""
EFFECTS = (1.0, 2.0, 4.0)
"""Differences that are there, in standard deviations of one score."""


def main() -> dict[str, Any]:
    """Simulate, print and return rows of rates."""
    rows = [_row(*one, effect=0.0, corrected=corrected) for one in PLANS for corrected in (True, False)]
    rows += [_row(3, 3, 20, effect=effect, corrected=True) for effect in EFFECTS]
    for row in rows:
        low, high = row["interval"]
        looks = "by the plan" if row["corrected"] else "after each seed, uncorrected"
        rate = f"{row['rate']:.1%} ({low:.1%} to {high:.1%}), {row['seeds']:.1f} seeds"
        print(
            f"{row['methods']:2} methods, {row['first']} to {row['most']} seeds, looks {looks:28} difference "
            f"{row['effect']:.0f} sd: a verdict in {rate}"
        )
    return {"comparisons": COMPARISONS, "rows": rows}


def simulate(
    methods: int, plan: Plan, effect: float = 0.0, comparisons: int = COMPARISONS, corrected: bool = True, seed: int = 0
) -> tuple[int, int, float]:
    """Comparisons with a verdict about any method, verdicts "worse" among them, and the mean of seeds trained.

    Args:
        methods: How many are compared with the baseline.
        plan: When verdicts are looked at; without correction after every seed, as at a comparison of fixed length.
        effect: By how much every method is better.
        comparisons: How many.
        corrected: Whether the looks share the error.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    error = (1 - CONFIDENCE) / methods
    scores = random.standard_normal((comparisons, methods + 1, plan.most))
    pairs = scores[:, 1:] + effect - scores[:, :1]
    found, trained = np.zeros((comparisons, methods)), np.zeros(comparisons)
    for look in plan.looks if corrected else range(plan.first, plan.most + 1):
        running = found == 0
        trained = np.where(running.any(1), look, trained)
        seen = pairs[:, :, :look]
        half = half_width(seen, error * (plan.share(look) if corrected else 1.0))
        found = np.where(running & (np.abs(seen.mean(-1)) > half), np.sign(seen.mean(-1)), found)
    return int(found.any(1).sum()), int((found < 0).any(1).sum()), float(trained.mean())


def _row(methods: int, first: int, most: int, effect: float, corrected: bool) -> dict[str, Any]:
    some, worse, seeds = simulate(methods, Plan(first, most), effect, corrected=corrected)
    return {
        "methods": methods,
        "first": first,
        "most": most,
        "effect": effect,
        "corrected": corrected,
        "rate": some / COMPARISONS,
        "interval": wilson(some, COMPARISONS),
        "worse": worse / COMPARISONS,
        "seeds": seeds,
    }


def section(content: dict[str, Any]) -> str:
    """What docs/results.md says of it."""
    figures = content["figures"]
    lines = ["## Verdicts while seeds are added\n", f"    {content['command']}\n"]
    lines.append("| methods | seeds | looks | difference | a verdict about any method | seeds trained, mean |")
    lines.append("|---|---|---|---|---|---|")
    for row in figures["rows"]:
        low, high = row["interval"]
        looks = "by the plan" if row["corrected"] else "after each seed, uncorrected"
        rate = f"{row['rate']:.1%} ({low:.1%} to {high:.1%})"
        there = f"{row['effect']:.0f} sd" if row["effect"] else "none"
        lines.append(
            f"| {row['methods']} | {row['first']} to {row['most']} | {looks} | {there} | {rate} | {row['seeds']:.1f} |"
        )
    note = (
        f"{figures['comparisons']:,} simulated comparisons a row, with Wilson's 95 % interval. Where there is no "
        "difference, every verdict is false: `limbeck compare --until decided` allows 5 %. Differences are in standard "
        "deviations of one method's score over seeds. Looking after each seed without correction is shown to be told "
        "apart: limbeck does not do it."
    )
    return "\n".join(lines) + f"\n\n{note}\n"
