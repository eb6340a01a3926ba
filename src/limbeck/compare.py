"""What each method is worth: the same student by several methods and seeds, at one budget.

Every method trains the same starts on the same data order for the same epochs with the same optimizer; "scratch", the
student without a teacher, is always among them. Differences are taken in pairs of one seed.

For self-distillation "scratch" learns the labels at every exit, and "backbone" is the plain network behind the deepest
exit, trained alone: the two things that "without self-distillation" may mean.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.distillers import Distiller
from limbeck.engine.devices import from_first
from limbeck.engine.files import write_json
from limbeck.engine.progress import tell
from limbeck.errors import RequestError, unknown
from limbeck.models.multi_exit import MultiExit
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.chain import distil
from limbeck.recipes.compiling import decided
from limbeck.recipes.diagnosis import examine
from limbeck.recipes.folder import COMPARISON, RESULT, environment, opened
from limbeck.recipes.job import Job, settled
from limbeck.recipes.machine import Machine
from limbeck.recipes.methods import METHODS, SCHEMES, by_name
from limbeck.recipes.outputs import Ledger
from limbeck.recipes.rehearsal import check_shares, rehearse
from limbeck.recipes.run import teacher_entry

SCRATCH = "scratch"
OWN = "recipe"
BACKBONE = "backbone"
EACH = "test_accuracy/"
CONFIDENCE = 0.95


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
    began: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Train the recipe's student by every method with every seed, and say what the differences show.

    Args:
        recipe: Data, teacher, student and training; its own terms are the method "recipe".
        methods: Names of `METHODS`, `SCHEMES` or `variants`, "recipe" for the recipe as it is, "backbone" for the
            deepest exit's network alone, or "scratch", which is added where it is missing.
        seeds: One student is trained for each; three or more show a spread.
        root: Folder of the data.
        out: Folder of the comparison; runs/compare-NAME by default.
        resume: Go on with an interrupted comparison in `out`.
        variants: The recipe's variants that may be named; they differ from it in how they distil alone.
        machine: Devices and display.
        began: Told the folder, before anything is trained.

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
    student = build.model(recipe.student, data, recipe.seed)
    recipes = {name: _recipe(recipe, name, variants or {}, student) for name in methods}
    for name, one in recipes.items():
        rehearse(recipe if name == BACKBONE else one, student, found, data)
    recipe = settled(recipe, student, data, machine)
    recipes = {name: one.model_copy(update={"precision": recipe.precision}) for name, one in recipes.items()}
    fabric = machine.fabric(recipe.precision)
    check_shares(recipe, found, fabric.world_size)

    with opened(out, f"compare-{recipe.name}", recipe, resume, fabric) as folder:
        began(folder)
        for candidate in found:
            teachers.train(candidate, recipe, data, machine, folder, resume=resume, retrain=False)
        teachers.share_out(found, fabric)
        taught = [one for name, one in recipes.items() if name not in (SCRATCH, BACKBONE)]
        outputs = Ledger(folder, fabric, resume)
        job = Job(recipe, data, machine, fabric, folder, resume, trainings=len(seeds), outputs=outputs)
        job = decided(job, taught, student, found)
        comparison = _compared(job, recipes, seeds, found, student)
        if fabric.is_global_zero:
            write_json(folder / COMPARISON, comparison)
        fabric.barrier()
    return {**comparison, "out": str(folder)}


def _compared(
    job: Job,
    recipes: Mapping[str, schema.Recipe],
    seeds: Sequence[int],
    found: Sequence[teachers.Candidate],
    student: nn.Module,
) -> dict[str, Any]:
    """Train and test every method with every seed: what compare.json holds."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    diagnosis = examine(replace(job, recipe=_taught(recipes)), student, found)
    for name, one in recipes.items():
        for seed in seeds:
            seeded = one.model_copy(update={"seed": seed})
            own = replace(job, recipe=seeded, out=job.out / f"{name}-seed{seed}")
            finished = own.out / RESULT
            if not (job.resume and from_first(job.fabric, finished.exists)):
                if job.machine.progress and job.fabric.is_global_zero:
                    tell(f"{name}, seed {seed}")
                _carry_out(own, name, found)
            results[name].append(
                from_first(job.fabric, lambda: json.loads(finished.read_text(encoding="utf-8")))  # noqa: B023
            )
    return {
        "recipe": job.recipe.name,
        "data": job.data.name,
        "device": job.fabric.device.type,
        "epochs": job.recipe.epochs,
        "seeds": list(seeds),
        "teacher": [teacher_entry(candidate, job) for candidate in found],
        **diagnosis,
        "teacher_outputs": job.outputs.entries(),
        "methods": summarise(results, 1 / len(job.data.test)),
        "environment": environment(),
    }


def summarise(results: dict[str, list[dict[str, Any]]], resolution: float = 0.0) -> dict[str, dict[str, Any]]:
    """Means, spreads, paired differences to scratch and a verdict, from each method's results by seed.

    The interval of a difference is Student's at 95 %. The verdict rests on a wider one, at 1 − 0.05/m for m methods
    compared (Bonferroni), so that among many methods none is called better by luck alone. `resolution` is what one
    sample of the test set counts.
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
            entry |= difference([a - b for a, b in zip(accuracy, scratch, strict=True)], rivals, resolution)
        if each := _each(results, name, resolution):
            entry["predictions"] = each
        summary[name] = entry
    return summary


def _each(results: Mapping[str, list[dict[str, Any]]], name: str, resolution: float) -> dict[str, dict[str, Any]]:
    """A method's exits (or peers), each like a method: beside scratch's of the same name, and beside the backbone.

    The verdicts beside scratch are corrected for all exits of all methods, and so are those beside the backbone.
    """
    given = {
        method: [figure for figure in by_seed[0] if figure.startswith(EACH)] for method, by_seed in results.items()
    }
    rivals = (len(results) - 1) * max(map(len, given.values()))
    alone = _column(results, BACKBONE, "test_accuracy")
    entries = {}
    for figure in given[name]:
        accuracy, scratch = _column(results, name, figure), _column(results, SCRATCH, figure)
        entry: dict[str, Any] = {"accuracies": accuracy, "mean": statistics.mean(accuracy), "std": _std(accuracy)}
        if name != SCRATCH and scratch:
            entry |= difference([a - b for a, b in zip(accuracy, scratch, strict=True)], rivals, resolution)
        if name != BACKBONE and alone:
            entry[BACKBONE] = difference([a - b for a, b in zip(accuracy, alone, strict=True)], rivals, resolution)
        entries[figure.removeprefix(EACH)] = entry
    return entries


def _column(results: Mapping[str, list[dict[str, Any]]], name: str, figure: str) -> list[float]:
    """A figure of one method by seed; empty where the method is not there, or does not have it."""
    return [result[figure] for result in results.get(name, ()) if figure in result]


def difference(pairs: Sequence[float], rivals: int = 1, resolution: float = 0.0) -> dict[str, Any]:
    """The mean of paired differences, its 95 % interval, and a verdict corrected for the number of rivals.

    Accuracies come in steps of `resolution`. Two of them, so rounded, leave a difference uncertain by a standard
    deviation of resolution / √6, and no spread is taken for less: a few seeds that agree to the sample prove nothing.

    >>> difference([0.010, 0.012, 0.011])["verdict"]
    'better'
    >>> difference([0.010, -0.012, 0.011])["verdict"]
    'no difference shown'
    """
    mean = statistics.mean(pairs)
    least = resolution / math.sqrt(6)
    half, strict = (_half_width(pairs, error, least) for error in (1 - CONFIDENCE, (1 - CONFIDENCE) / rivals))
    if half is None or strict is None:
        return {"difference": mean, "interval": None, "verdict": "one seed shows nothing"}
    verdict = "better" if mean > strict else "worse" if mean < -strict else "no difference shown"
    return {"difference": mean, "interval": [mean - half, mean + half], "verdict": verdict}


def _half_width(values: Sequence[float], error: float, least: float) -> float | None:
    from scipy import stats

    if len(values) < 2:
        return None
    quantile = float(stats.t.ppf(1 - error / 2, len(values) - 1))
    return quantile * max(statistics.stdev(values), least) / math.sqrt(len(values))


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _recipe(
    recipe: schema.Recipe, name: str, variants: Mapping[str, schema.Recipe], student: nn.Module
) -> schema.Recipe:
    """The recipe with a method's way of distilling; with a variant's, if that is all the variant changes."""
    if name in (OWN, SCRATCH):
        return recipe
    if name == BACKBONE:
        if not isinstance(student, MultiExit):
            raise RequestError(f"{BACKBONE} is a deepest exit alone, and {recipe.student.model} has a single exit")
        deepest = recipe.student.model_copy(update={"exit": len(student.trunk)})
        return recipe.model_copy(update={"student": deepest})
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
        if name not in (*METHODS, *SCHEMES, *variants, SCRATCH, OWN, BACKBONE):
            raise unknown("method", name, [*METHODS, *SCHEMES, *variants, SCRATCH, OWN, BACKBONE])
    if len(names) == 1:
        raise RequestError("nothing to compare: name at least one method besides scratch")
    return names


def _carry_out(job: Job, name: str, found: Sequence[teachers.Candidate]) -> None:
    """Train and test one method with one seed, and write its result; an interrupted training goes on."""
    student = build.model(job.recipe.student, job.data, job.recipe.seed)
    judge = teachers.signal(found, mix=job.recipe.ensemble) if found else None
    if name == SCRATCH:
        alone = build.alone(student, job.recipe)
        training = job.train(alone, "student")
        tested = job.test(alone, judge)
    elif name == BACKBONE:
        alone = Distiller(student, inputs=build.inputs(job.recipe.student))
        training = job.train(alone, "student")
        tested = job.test(alone, judge)
        deepest = job.recipe.student.options["exit"]
        tested[f"{EACH}exit {deepest}/{deepest}"] = tested["test_accuracy"]
    else:
        distilled = distil(job, student, found)
        training, tested = distilled.training, job.test(distilled.scheme, judge)
        if distilled.ensemble:
            tested["ensemble_accuracy"] = job.test_teacher(distilled.ensemble)["test_accuracy"]
    if job.fabric.is_global_zero:
        write_json(job.out / RESULT, {"method": name, "seed": job.recipe.seed, **tested, **training})
    job.fabric.barrier()
