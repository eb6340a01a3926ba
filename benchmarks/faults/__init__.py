"""What machines and people do to a command: it is killed, its disk is full, its clock jumps, another is in its way.

Each line of the table is a situation, tried so many times at moments drawn from a seed. A trial is right if the command
ended as it should, and if what is resumed afterwards leaves the very bytes of a command that nobody disturbed, less the
times in them: models, teacher outputs, results, metrics, and not a file more.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults.clocks import jumping_clock
from benchmarks.faults.disks import full_disk, read_only
from benchmarks.faults.forked import Place, fork, ready
from benchmarks.faults.kills import kills_at_changes, random_kills
from benchmarks.faults.memory import KINDS, flat
from benchmarks.faults.rows import Row
from benchmarks.faults.stops import stops
from benchmarks.faults.together import no_folder, one_cache, one_folder
from benchmarks.faults.trials import commands, measured

SEED = 0
KILLS = {"run": 20, "compare": 18, "cache": 12}
FRESH = {"run": 2, "compare": 0, "cache": 1}
"""Of the trials with kills so many start Python anew each time."""
EPOCHS = 200


def main(*, quick: bool = False) -> dict[str, Any]:
    """Try everything, print the table, and return its lines; `quick` tries a few things once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    ready()
    with tempfile.TemporaryDirectory(prefix="limbeck-faults-") as folder:
        rows = _at_once(Path(folder), (_quick,) if quick else (_with_run, _with_compare_and_cache))
    tried, wrong = sum(row.tried for row in rows), sum(len(row.faults) for row in rows)
    print(f"{tried} tried, {wrong} wrong", flush=True)
    return {"rows": [row.as_dict() for row in rows], "seed": SEED}


def _at_once(folder: Path, parts: Sequence[Callable[[Place], Iterator[Row]]]) -> list[Row]:
    """Let each part try its situations in a process and a place of its own; the lines of all, in order."""

    def carry_out(part: Callable[[Place], Iterator[Row]], place: Place) -> list[dict[str, Any]]:
        rows = []
        for row in part(place):
            row.show()
            rows.append(asdict(row))
        return rows

    places = [Place(folder / str(number) / "place") for number in range(len(parts))]
    waiting = [fork(place, partial(carry_out, part, place)) for part, place in zip(parts, places, strict=True)]
    return [Row(**row) for wait in waiting for row in wait()]


def _with_run(place: Place) -> Iterator[Row]:
    run = measured(commands(place)[0])
    yield random_kills(run, KILLS["run"], SEED, FRESH["run"])
    yield kills_at_changes(run, 20, SEED)
    yield full_disk(run, 8, SEED)
    yield read_only(run, SEED)
    yield jumping_clock(run, 4, SEED)
    yield stops(run, signal.SIGINT, 6, SEED)
    yield stops(run, signal.SIGTERM, 6, SEED)
    yield one_folder(run, 6, SEED)
    yield no_folder(run, 3, SEED)
    yield one_cache(run, 3, SEED)


def _with_compare_and_cache(place: Place) -> Iterator[Row]:
    pair = [measured(one) for one in commands(place)[1:]]
    for trial in pair:
        name = trial.words[0]
        yield random_kills(trial, KILLS[name], SEED, FRESH[name])
        yield kills_at_changes(trial, 8, SEED)
        yield full_disk(trial, 3, SEED)
        yield read_only(trial, SEED)
        yield jumping_clock(trial, 2, SEED)
        yield stops(trial, signal.SIGINT, 2, SEED)
        yield stops(trial, signal.SIGTERM, 2, SEED)
    compare = pair[0]
    yield one_folder(compare, 2, SEED)
    yield no_folder(compare, 1, SEED)
    yield one_cache(compare, 1, SEED)
    for kind in KINDS:
        yield flat(place, kind, EPOCHS, SEED)


def _quick(place: Place) -> Iterator[Row]:
    cache = measured(commands(place)[-1])
    yield random_kills(cache, 1, SEED)
    yield stops(cache, signal.SIGTERM, 1, SEED)
