"""Latency of several files, measured in turns in one process: what else the machine does meets all of them alike."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.shipping.intervals import median

ROUNDS, LEAST_ROUNDS = 60, 2
LOADS = 4
"""How often a file is loaded for it all: where its weights come to lie changes its speed by several percent, for as
long as it is loaded."""
TURN = 0.004
"""Seconds that a turn lasts at least: a fast file runs several times in it."""
PROBE = 0.2
"""Seconds of a look at what else the machine computes."""
WARM = 3
"""Runs before anything counts."""
Run = Callable[[], object]


def over_loads(load: Callable[[], Mapping[str, Run]], seconds: float) -> dict[str, list[list[float]]]:
    """The milliseconds of each contender's runs, turn by turn, all of them loaded several times.

    Args:
        load: Gives what is run, by name, loaded anew.
        seconds: About what all of it may take, as for `in_turns`.
    """
    turns: dict[str, list[list[float]]] = {}
    for _ in range(LOADS):
        for name, found in in_turns(load(), seconds / LOADS, -(-ROUNDS // LOADS)).items():
            turns.setdefault(name, []).extend(found)
    return turns


def in_turns(contenders: Mapping[str, Run], seconds: float, rounds: int = ROUNDS) -> dict[str, list[list[float]]]:
    """The milliseconds of each contender's runs, turn by turn.

    In each round every contender has one turn of one or several runs; the order changes from round to round, so that
    none always comes after the same one.

    Args:
        contenders: What is run, by name.
        seconds: About what all of it may take; there are `LEAST_ROUNDS` rounds in any case.
        rounds: How many there are where the time is enough.
    """
    alone = {name: _warmed(run) for name, run in contenders.items()}
    repeats = {name: max(1, int(TURN / max(took, 1e-7))) for name, took in alone.items()}
    whole = sum(alone[name] * repeats[name] for name in contenders)
    rounds = min(rounds, max(LEAST_ROUNDS, int(seconds / max(whole, 1e-7))))
    turns: dict[str, list[list[float]]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append([1000 * _timed(contenders[name]) for _ in range(repeats[name])])
    return turns


def busy() -> float:
    """The share of a processor's time that other programs take just now from a thread that computes without a break."""
    began, computed = time.perf_counter(), time.thread_time()
    while time.perf_counter() - began < PROBE:
        pass
    return max(0.0, 1 - (time.thread_time() - computed) / (time.perf_counter() - began))


def _warmed(run: Run) -> float:
    return min(_timed(run) for _ in range(WARM))


def _timed(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def figures(turns: Sequence[Sequence[float]], batch: int) -> dict[str, float]:
    """p50, p95 and mean of single runs in milliseconds, and samples a second at the median."""
    runs = list(itertools.chain.from_iterable(turns))
    p50, p95 = (float(np.percentile(runs, share)) for share in (50, 95))
    mean = statistics.fmean(runs)
    return {"p50_ms": p50, "p95_ms": p95, "mean_ms": mean, "samples_per_second": 1000 * batch / p50, "runs": len(runs)}


def ratio(turns: Sequence[Sequence[float]], of: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How many times as fast one contender is as another: the median over rounds of medians, and its 95 % interval.

    Args:
        turns: The one's.
        of: The other's, measured with it in turns.
    """
    rounds = [statistics.median(b) / statistics.median(a) for a, b in zip(turns, of, strict=True)]
    middle, interval = median(rounds)
    return {"ratio": middle, "interval": list(interval)}
