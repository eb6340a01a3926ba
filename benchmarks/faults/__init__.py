"""What machines and people do to a command: it is killed, its disk is full, its clock jumps, another is in its way.

Each line of the table is a situation, tried so many times at moments drawn from a seed. A trial is right if the command
ended as it should, and if what is resumed afterwards leaves the very bytes of a command that nobody disturbed, less the
times in them: models, teacher outputs, results, metrics, and not a file more.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.clocks import jumping_clock
from benchmarks.faults.disks import full_disk, read_only
from benchmarks.faults.forked import Place, ready
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
    rows = []
    with tempfile.TemporaryDirectory(prefix="limbeck-faults-") as folder:
        place = Place(Path(folder) / "place")
        place.root.mkdir()
        for row in _quick(place) if quick else _campaign(place):
            row.show()
            rows.append(row)
    tried, wrong = sum(row.tried for row in rows), sum(len(row.faults) for row in rows)
    print(f"{tried} tried, {wrong} wrong", flush=True)
    return {"rows": [row.as_dict() for row in rows], "seed": SEED}


def _campaign(place: Place) -> Iterator[Row]:
    for kind in KINDS:
        yield flat(place, kind, EPOCHS, SEED)
    run, compare, cache = every = [measured(one) for one in commands(place)]
    for trial in every:
        yield random_kills(trial, KILLS[trial.words[0]], SEED, FRESH[trial.words[0]])
    for trial, most in ((run, 20), (compare, 6), (cache, 8)):
        yield kills_at_changes(trial, most, SEED)
    for trial, tries in ((run, 8), (compare, 3), (cache, 3)):
        yield full_disk(trial, tries, SEED)
    for trial in every:
        yield read_only(trial, SEED)
    for trial in every:
        yield jumping_clock(trial, 4 if trial is run else 2, SEED)
    for number in (signal.SIGINT, signal.SIGTERM):
        for trial, tries in ((run, 6), (compare, 2), (cache, 2)):
            yield stops(trial, number, tries, SEED)
    for trial, tries in ((run, 6), (compare, 2)):
        yield one_folder(trial, tries, SEED)
    for trial, tries in ((run, 3), (compare, 1)):
        yield no_folder(trial, tries, SEED)
        yield one_cache(trial, tries, SEED)


def _quick(place: Place) -> Iterator[Row]:
    cache = measured(commands(place)[-1])
    yield random_kills(cache, 1, SEED)
    yield stops(cache, signal.SIGTERM, 1, SEED)
