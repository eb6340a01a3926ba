"""What each method is worth: the same student by several methods and seeds, at one budget.

Every method trains the same starts on the same data order for the same epochs with the same optimizer; "scratch", the
student without a teacher, is always among them. Differences are taken in pairs of one seed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.engine.files import write_json
from limbeck.errors import RequestError, unknown
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.chain import distil, rehearse
from limbeck.recipes.diagnosis import examine
from limbeck.recipes.folder import RESULT, choose, environment, open_folder
from limbeck.recipes.job import Job, settled
from limbeck.recipes.machine import Machine
from limbeck.recipes.methods import METHODS, SCHEMES, by_name
from limbeck.recipes.run import teacher_entry

SCRATCH = "scratch"
OWN = "recipe"
CONFIDENCE = 0.95
COMPARISON = "compare.json"


def compare(
    recipe: schema.Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    variants: Mapping[str, schema.Recipe] | None = None,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """Train the recipe's student by every method with every seed, and say what the differences show.

    Args:
        recipe: Data, teacher, student and training; its own terms are the method "recipe".
        methods: Names of `METHODS`, `SCHEMES` or `variants`, "recipe" for the recipe as it is, or "scratch", which is
            added where it is missing.
        seeds: One student is trained for each; three or more show a spread.
        root: Folder of the data.
        out: Folder of the comparison; runs/compare-NAME by default.
        resume: Go on with an interrupted comparison in `out`.
        variants: The recipe's variants that may be named; they differ from it in how they distil alone.
        machine: Devices and display.

    Returns:
        What compare.json holds, and "out", the folder.

    Raises:
        RequestError: Something does not fit any of the methods; found before anything is written.
        RunError: A training failed.
    """
    machine = machine or Machine()
    methods = _checked(methods, list(variants or {}))
    if not seeds:
        raise RequestError("a comparison needs at least one seed")
    data = build.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    recipes = {name: _recipe(recipe, name, variants or {}) for name in methods}
    student = build.model(recipe.student, data, recipe.seed)
    for one in recipes.values():
        rehearse(one, student, found, data)
    recipes = {name: settled(one, student, data, machine) for name, one in recipes.items()}
    recipe = settled(recipe, student, data, machine)
    fabric = machine.fabric(recipe.precision)

    out = Path(fabric.broadcast(choose(out, f"compare-{recipe.name}", resume)))
    if fabric.is_global_zero:
        open_folder(out, recipe, resume)
    fabric.barrier()
    for candidate in found:
        teachers.train(candidate, recipe, data, machine, out, resume=resume, retrain=False)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    job = Job(recipe, data, machine, fabric, out, resume)
    diagnosis = examine(replace(job, recipe=_taught(recipes)), student, found)
    for name, one in recipes.items():
        for seed in seeds:
            seeded = one.model_copy(update={"seed": seed})
            own = replace(job, recipe=seeded, out=out / f"{name}-seed{seed}")
            finished = own.out / RESULT
            if not (resume and finished.exists()):
                _carry_out(own, name, found)
            results[name].append(json.loads(finished.read_text(encoding="utf-8")))
    comparison = {
        "recipe": recipe.name,
        "data": data.name,
        "device": fabric.device.type,
        "epochs": recipe.epochs,
        "seeds": list(seeds),
        "teacher": [teacher_entry(candidate, job) for candidate in found],
        **diagnosis,
        "methods": summarise(results),
        "environment": environment(),
    }
    if fabric.is_global_zero:
        write_json(out / COMPARISON, comparison)
    return {**comparison, "out": str(out)}


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means, spreads, paired differences to scratch and a verdict, from each method's results by seed.

    The interval of a difference is Student's at 95 %. The verdict rests on a wider one, at 1 − 0.05/m for m methods
    compared (Bonferroni), so that among many methods none is called better by luck alone.
    """
    scratch = [result["test_accuracy"] for result in results[SCRATCH]]
    rivals = len(results) - 1
    summary = {}
    for name, by_seed in results.items():
        accuracy = [result["test_accuracy"] for result in by_seed]
        entry: dict[str, Any] = {"accuracies": accuracy, "mean": statistics.mean(accuracy), "std": _std(accuracy)}
        for figure in ("test_agreement", "seconds"):
            values = [result[figure] for result in by_seed if figure in result]
            entry[figure.removeprefix("test_")] = statistics.mean(values) if values else None
        if name != SCRATCH:
            entry |= difference([a - b for a, b in zip(accuracy, scratch, strict=True)], rivals)
        summary[name] = entry
    return summary


def difference(pairs: Sequence[float], rivals: int = 1) -> dict[str, Any]:
    """The mean of paired differences, its 95 % interval, and a verdict corrected for the number of rivals.

    >>> difference([0.010, 0.012, 0.011])["verdict"]
    'better'
    >>> difference([0.010, -0.012, 0.011])["verdict"]
    'no difference shown'
    """
    mean = statistics.mean(pairs)
    half, strict = _half_width(pairs, 1 - CONFIDENCE), _half_width(pairs, (1 - CONFIDENCE) / rivals)
    if half is None or strict is None:
        return {"difference": mean, "interval": None, "verdict": "one seed shows nothing"}
    verdict = "better" if mean > strict else "worse" if mean < -strict else "no difference shown"
    return {"difference": mean, "interval": [mean - half, mean + half], "verdict": verdict}


def _half_width(values: Sequence[float], error: float) -> float | None:
    from scipy import stats

    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf(1 - error / 2, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _recipe(recipe: schema.Recipe, name: str, variants: Mapping[str, schema.Recipe]) -> schema.Recipe:
    """The recipe with a method's way of distilling; with a variant's, if that is all the variant changes."""
    if name in (OWN, SCRATCH):
        return recipe
    if name not in variants:
        return by_name(recipe, name)
    variant = variants[name]
    changed = [key for key in type(recipe).model_fields if getattr(recipe, key) != getattr(variant, key)]
    if set(changed) - {"name", "distill"}:
        raise RequestError(
            f"variant {name} changes {', '.join(key for key in changed if key not in ('name', 'distill'))} too, "
            "so it cannot be compared at an equal budget; compare it by itself: limbeck compare RECIPE:VARIANT"
        )
    return recipe.model_copy(update={"distill": variant.distill})


def _taught(recipes: Mapping[str, schema.Recipe]) -> schema.Recipe:
    """The first compared recipe that hears the teacher, or else the first; its temperature is the diagnosis's."""
    rivals = [one for name, one in recipes.items() if name != SCRATCH]
    return next((one for one in rivals if one.distill.scheme in schema.TAUGHT), rivals[0])


def _checked(methods: Sequence[str], variants: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys([SCRATCH, *methods]))
    for name in names:
        if name not in (*METHODS, *SCHEMES, *variants, SCRATCH, OWN):
            raise unknown("method", name, [*METHODS, *SCHEMES, *variants, SCRATCH, OWN])
    if len(names) == 1:
        raise RequestError("nothing to compare: name at least one method besides scratch")
    return names


def _carry_out(job: Job, name: str, found: Sequence[teachers.Candidate]) -> None:
    """Train and test one method with one seed, and write its result; an interrupted training goes on."""
    student = build.model(job.recipe.student, job.data, job.recipe.seed)
    judge = teachers.signal(found) if found else None
    if name == SCRATCH:
        alone = build.alone(student, job.recipe)
        training = job.train(alone, "student")
        tested = job.test(alone, judge)
    else:
        distilled = distil(job, student, found)
        training, tested = distilled.training, job.test(distilled.scheme, judge)
        if distilled.ensemble:
            tested["ensemble_accuracy"] = job.test_teacher(distilled.ensemble)["test_accuracy"]
    if job.fabric.is_global_zero:
        write_json(job.out / RESULT, {"method": name, "seed": job.recipe.seed, **tested, **training})
    job.fabric.barrier()
