"""Ctrl-C and SIGTERM at random moments: the status, the line, and that the command it names goes on."""

from __future__ import annotations

import random
import shlex
import signal

from benchmarks.faults.forked import Ended, go, start
from benchmarks.faults.rows import Row
from benchmarks.faults.trials import Trial

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def stops(trial: Trial, number: signal.Signals, tries: int, seed: int) -> Row:
    """Stop a command at random moments, and do what its one line says."""
    status = 128 + number
    name = {signal.SIGINT: "Ctrl-C (SIGINT)", signal.SIGTERM: "SIGTERM"}[number]
    row = Row(f"{name}, {trial.name}", f"exit {status} and one line; the command that it names leaves the same bytes")
    draw = random.Random(f"{trial.name} {number} {seed}")
    told, life = 0, trial.seconds
    while row.tried < tries:
        trial.begin()
        moment = draw.uniform(0, life)
        ended, seconds = start(trial.place, trial.words).stop(number, moment)
        if ended.status == 0:  # it was done before: moments are drawn from a shorter life from now on
            life = seconds
            continue
        if ended.status == -number:  # it had not begun to listen
            continue
        right = ended.status == status and WORDS[number] in ended.line
        faults = [] if right else [f"it ended with {ended.told}"]
        words = _named(ended)
        told += bool(words)
        resumed = go(trial.place, words or list(trial.words))
        row.add(f"after {moment:.3f} s", faults + trial.wrong(resumed))
    row.note = f"{told} named the command that goes on; the others had not begun"
    return row


def _named(ended: Ended) -> list[str]:
    """The words after `limbeck` of the command that a line names, less what `start` adds itself."""
    words = shlex.split(ended.line.partition("resume with: limbeck ")[2])
    return [word for word in words if word != "--quiet"]
