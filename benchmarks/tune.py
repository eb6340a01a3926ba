"""What a search costs beside one run: 100 trials of fashion-cnn, and one run of it with an online teacher.

The run trains the teacher, the baseline, and the student, for which it asks the teacher at every step. The search finds
the teacher trained, and computes its outputs once for all trials.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from limbeck.recipes.read import read
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.tuning.asked import Asked
from limbeck.tuning.tune import tune

TRIALS = 50
"""Of the baseline, and as many of the recipe's method."""
QUICK_TRIALS, QUICK = 2, ("data.limit_samples=2000", "teacher.epochs=1", "epochs=2")


def main(root: Path, *, quick: bool = False) -> dict[str, Any]:
    """Measure, print and return the seconds."""
    given, trials = (QUICK, QUICK_TRIALS) if quick else ((), TRIALS)
    machine = Machine(progress=False)
    with tempfile.TemporaryDirectory() as folder:
        online = run(
            read("fashion-cnn", [*given, "teacher.store=never"]),
            root=root,
            out=Path(folder) / "run",
            machine=machine,
        )
        asked = Asked(["recipe"], trials, fresh=1)
        found = tune(read("fashion-cnn", given), asked, root=root, out=Path(folder) / "tune", machine=machine)
    seconds = {name: online[name]["seconds"] for name in ("teacher", "baseline", "distilled")}
    once, search = sum(seconds.values()), found["cost"]["search"] + found["cost"]["teacher_outputs"]
    pruned = sum(found[name]["pruned"] for name in ("baseline", "recipe"))
    parts = ", ".join(f"{name} {one:.1f}" for name, one in seconds.items())
    print(f"one run with an online teacher: {once:.1f} s ({parts})")
    print(f"{2 * trials} trials, of which {pruned} ended early: {search:.1f} s")
    print(
        f"{search / once:.1f} times the run, {search / seconds['distilled']:.1f} times its distilled student's training"
    )
    return {
        "trials": 2 * trials,
        "pruned": pruned,
        "search_seconds": search,
        "run_seconds": seconds,
        "times_run": search / once,
        "times_student": search / seconds["distilled"],
    }
