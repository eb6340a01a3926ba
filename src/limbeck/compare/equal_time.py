"""The same methods at equal wall time: each is trained once more, for as many steps as it makes in that time."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.compare.cells import BASELINE, Cell, cells, completed, weed
from limbeck.compare.groups import Group, group_of
from limbeck.compare.students import results, train_all
from limbeck.compare.verdicts import BySeed, Rules, summarise
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.fabric import from_first
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import teachers
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.keeping import seconds_per_sample
from limbeck.runs.parallel.processes import Pool
from limbeck.runs.train import Job

FOLDER, PLAN = "equal-time", "plan.json"
Seconds = float | str
"""A time in seconds, or `BASELINE` for what the baseline takes."""


@dataclass(frozen=True)
class Cost:
    """What a method took at equal steps, a mean over its seeds.

    Attributes:
        training: Seconds of its steps, online teachers and the writing of texts included.
        teacher: Seconds in which the teacher was asked before the first step; they do not grow with the steps.
        steps: Of its training.
    """

    training: float
    teacher: float
    steps: int

    def steps_in(self, seconds: float) -> int:
        """How many steps it makes in so many seconds; 0 where the teacher alone takes longer."""
        return max(0, math.floor((seconds - self.teacher) * self.steps / max(self.training, 1e-9)))


def check_seconds(given: Seconds | None, recipe: schema.Recipe, *, adds_seeds: bool) -> None:
    """Raise RequestError for a time that is none, or a comparison that has no fixed number of steps and seeds."""
    if given is None:
        return
    if given != BASELINE and (not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < 1e9):
        raise RequestError(f"equal time is {BASELINE}, or a number of seconds above 0, not {given!r}")
    if recipe.early_stopping is not None:
        raise RequestError("equal time plans a number of steps; leave early_stopping out (keep: best may stay)")
    if adds_seeds:
        raise RequestError("--until decided looks at one table; leave it out, or --budget")


def equal_time(
    seconds: Seconds, found: Mapping[str, BySeed], among: Sequence[Group], job: Job, root: Path, pool: Pool | None,
    rules: Rules, *, redo: bool,
) -> dict[str, Any]:  # fmt: skip
    """Train all students of a comparison again, each for the steps that its method makes in one time.

    The number of steps follows from the seconds that were measured at equal steps. It is chosen once and written down,
    so that a resumed comparison, or one with more seeds, keeps to it: figures are a function of it, as they are of
    epochs. The learning rate's schedule, ramps and validation keep their places, as an epoch gets fewer or more steps.

    Args:
        seconds: The time.
        found: The results at equal steps, by method and seed.
        among: Their teachers.
        job: The comparison; the students lie in its folder's `equal-time`.
        root: Folder of the data.
        pool: Processes that train side by side.
        rules: How verdicts are made.
        redo: Train again what was made of something else.

    Returns:
        "seconds", "of" (what that is), "methods" as a comparison has them, with "steps" and "steps_per_epoch"; "left"
        names the methods whose teacher alone takes longer.
    """
    own = replace(job, out=job.out / FOLDER)
    plan = from_first(job.fabric, lambda: _plan(seconds, found, among, job))
    students: dict[str, BySeed] = {}
    timed: list[Cell] = []
    for name, by_seed in found.items():
        steps = plan["steps_per_epoch"][name]
        if steps == plan["whole"]:
            students[name] = by_seed
        elif steps:
            timed += _cells(name, steps, sorted(by_seed), among)
    from_first(job.fabric, lambda: weed(own.out, timed, redo))
    if timed and job.machine.progress and job.fabric.is_global_zero:
        tell(f"at equal time, {plan['seconds']:.1f} s a student")
    train_all(timed, among, own, root, pool)
    students |= results(timed, own)
    kept = {name: students[name] for name in found if name in students}
    methods = summarise(kept, rules)
    for name, entry in methods.items():
        entry["steps_per_epoch"] = plan["steps_per_epoch"][name]
        entry["steps"] = job.recipe.epochs * entry["steps_per_epoch"]
    left = [name for name in found if name not in kept]
    return {"seconds": plan["seconds"], "of": plan["of"], "methods": methods, **({"left": left} if left else {})}


def _plan(seconds: Seconds, found: Mapping[str, BySeed], among: Sequence[Group], job: Job) -> dict[str, Any]:
    """How many steps an epoch of each method has; as it was written down before, as far as it was."""
    path = job.out / FOLDER / PLAN
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    of = seconds if isinstance(seconds, str) else "stated"
    whole = job.recipe.steps_per_epoch or len(job.training_loader())
    asking = _asking_seconds(among, job)
    costs = {name: _cost(by_seed, whole, asking) for name, by_seed in found.items()}
    time = float(seconds) if not isinstance(seconds, str) else costs[BASELINE].training
    if before is not None:
        if before["of"] != of or (of != BASELINE and before["seconds"] != time):
            raise RequestError(
                f"{path} was planned for {before['seconds']:g} s ({before['of']}); give the same --budget, or choose "
                "another --out"
            )
        time = before["seconds"]
    steps: dict[str, int] = dict(before["steps_per_epoch"]) if before else {}
    for name, cost in costs.items():
        known = whole if name == BASELINE and of == BASELINE else cost.steps_in(time) // job.recipe.epochs
        steps.setdefault(name, known)
    if not steps[BASELINE]:
        raise RequestError(f"{time:g} s are too short for one step an epoch of the baseline; give more")
    plan = {"seconds": time, "of": of, "whole": whole, "steps_per_epoch": steps}
    path.parent.mkdir(exist_ok=True)
    write_json(path, plan)
    return plan


def _cost(by_seed: BySeed, steps_per_epoch: int, asking: float) -> Cost:
    some = list(by_seed.values())
    # Of several students that share a teacher's outputs one may have waited for them, and the others found them.
    waits = [one["teacher_seconds"] for one in some if "teacher_seconds" in one]
    training = statistics.mean(one["seconds"] - one.get("teacher_seconds", 0.0) for one in some)
    steps = round(statistics.mean(one["epochs"] for one in some)) * steps_per_epoch
    return Cost(training, max([*waits, asking]) if waits else 0.0, steps)


def _asking_seconds(among: Sequence[Group], job: Job) -> float:
    """What storing the teacher's outputs takes, by a probe, where an earlier run had done it; else 0."""
    if not among[0].found or not any(one["found"] for one in job.outputs.entries()):
        return 0.0
    group = among[0]
    asking = Asking(group.recipe, job.data, job.fabric, group.found[0].spec.store)
    online = teachers.as_one(group.found, mix=job.recipe.ensemble)
    return asking.views * len(job.data.train) * seconds_per_sample(asking, online)


def _cells(name: str, steps: int, seeds: Sequence[int], among: Sequence[Group]) -> list[Cell]:
    found: list[Cell] = []
    for group in among:
        own = [(name, seed) for seed in seeds if group_of(seed, len(among)) == group.number]
        recipe = group.recipes[name].model_copy(update={"steps_per_epoch": steps})
        found += completed(cells({name: recipe}, own, group.origins), group.origins)
    return found
