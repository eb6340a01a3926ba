"""What a search costs beside one run: 100 trials of fashion-cnn, and its student trained once by an online teacher.

The teacher is trained before, and counted apart. The search computes its outputs once for all trials; the run asks it
at every step.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from limbeck.recipes.read import read
from limbeck.runs.machine import Machine
from limbeck.runs.run import run
from limbeck.tuning.tune import Asked, tune

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
            baseline=False,
            machine=machine,
        )
        asked = Asked(["recipe"], trials, fresh=1)
        found = tune(read("fashion-cnn", given), asked, root=root, out=Path(folder) / "tune", machine=machine)
    once, search = online["distilled"]["seconds"], found["cost"]["search"] + found["cost"]["teacher_outputs"]
    pruned = sum(found[name]["pruned"] for name in ("baseline", "recipe"))
    print(f"one run with an online teacher: {once:.1f} s; its teacher's training: {online['teacher']['seconds']:.1f} s")
    print(f"{2 * trials} trials, of which {pruned} ended early: {search:.1f} s, {search / once:.1f} times the run")
    return {
        "trials": 2 * trials,
        "pruned": pruned,
        "search_seconds": search,
        "run_seconds": once,
        "teacher_seconds": online["teacher"]["seconds"],
        "times": search / once,
    }
