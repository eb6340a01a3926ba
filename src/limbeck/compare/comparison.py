"""A comparison: trains what is missing in its folder, and sums up all that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.compare.cells import (
    BACKBONE,
    OWN,
    SCRATCH,
    Cell,
    cells,
    completed,
    named,
    recipe_of,
    students_in,
    weed,
    weed_teachers,
)
from limbeck.compare.labels import own_label
from limbeck.compare.verdicts import Rules, summarise
from limbeck.engine.devices import from_first
from limbeck.engine.files import write_json, write_text
from limbeck.engine.progress import tell
from limbeck.errors import RequestError
from limbeck.models import parameter_count
from limbeck.notices import once
from limbeck.recipes import schema
from limbeck.recipes.read import dump, recorded_variants
from limbeck.runs import components, hits, identity, teachers
from limbeck.runs.checks import check_shares, dry_run
from limbeck.runs.compiling import decided
from limbeck.runs.diagnose import examine
from limbeck.runs.entry import score
from limbeck.runs.folder import COMPARISON, RECIPE, RESULT, choose, environment, opened, read_result
from limbeck.runs.identity import Origins
from limbeck.runs.ledger import Ledger
from limbeck.runs.machine import Machine
from limbeck.runs.run import teacher_entry
from limbeck.runs.stages import distil
from limbeck.runs.train import Job, settled, settled_as, trial
from limbeck.teachers import Teacher


def compare(
    recipe: schema.Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    redo: bool = False,
    effect: float | None = None,
    variants: Mapping[str, schema.Recipe] | None = None,
    machine: Machine | None = None,
    began: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Train the recipe's student by every method with every seed, and say what the differences show.

    Args:
        recipe: Data, teacher, student and training; its own terms are the method "recipe".
        methods: Names of `METHODS` (with a setting: "dkd:imagenet"), `SCHEMES` or `variants`, "recipe" for the recipe
            as it is, "backbone" for the deepest exit's network alone, or "scratch", which is added where it is missing.
        seeds: One student is trained for each; three or more show a spread.
        root: Folder of the data.
        out: Folder of the comparison; runs/compare-NAME by default.
        resume: Resume an interrupted comparison in `out`, or add methods and seeds to a finished one. All its
            students count, also those of methods and seeds that are not named again.
        redo: Resume, and train again what was made of something else: another recipe, own code, teacher or data.
        effect: The size of a difference of which is said how many seeds would show it; by default one point of an
            accuracy, of another score a hundredth of the baseline's.
        variants: The recipe's variants that may be named, ":NAME" where a method is called so too; they differ from
            the recipe in how they distil alone.
        machine: Devices and display.
        began: Told the folder, before anything is trained.

    Returns:
        What compare.json holds, and "out", the folder.

    Raises:
        RequestError: Something does not fit any of the methods, or students in the folder were made of something
            else; found before anything is written.
        RunError: A training failed.
    """
    machine, variants, resume = machine or Machine(), variants or {}, resume or redo
    asked = named(methods, variants)
    if not seeds:
        raise RequestError("a comparison needs at least one seed")
    proposed = choose(out, f"compare-{recipe.name}", resume)
    before = students_in(proposed) if resume else []
    data = components.data(recipe.data, root)
    if not components.task(recipe, data).labelled:
        raise RequestError(
            "a comparison stands beside the baseline, which learns from labels, and this task has none: use limbeck run"
        )
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, recipe.seed)
    recipes = {name: recipe_of(recipe, name, variants, student) for name in (*asked, *(method for method, _ in before))}
    for name, one in recipes.items():
        dry_run(recipe if name == BACKBONE else one, student, found, data)
    recipe = settled(recipe, student, data, machine)
    recipes = {name: settled_as(recipe, one) for name, one in recipes.items()}
    fabric = machine.fabric(recipe.precision)
    check_shares(recipe, found, fabric.world_size)
    origins = Origins(student, found, data, root)
    students = cells(recipes, [*((name, seed) for name in asked for seed in seeds), *before], origins)
    chosen = {name: one for name, one in variants.items() if {name, f":{name}"} & recipes.keys()}
    described = dump(recipe, {**recorded_variants(proposed / RECIPE), **chosen})

    with (
        opened(out, f"compare-{recipe.name}", described, resume, fabric, lambda at: weed(at, students, redo)) as folder,
        once(),
    ):
        began(folder)
        from_first(fabric, lambda: weed_teachers(folder, found, origins.of_teachers(recipe)))
        for candidate in found:
            teachers.train(candidate, recipe, data, machine, folder, resume=resume, retrain=False)
        students = completed(students, origins)
        from_first(fabric, lambda: weed(folder, students, redo))
        teachers.share_out(found, fabric)
        taught = [one for name, one in recipes.items() if name not in (SCRATCH, BACKBONE)]
        outputs = Ledger(folder, fabric, resume)
        job = Job(recipe, data, machine, fabric, folder, resume, trainings=len(seeds), outputs=outputs)
        job = decided(job, taught, student, found)
        comparison = _compared(job, recipes, students, found, student, Rules(len(data.test), effect=effect))
        if fabric.is_global_zero:
            write_json(folder / COMPARISON, comparison)
        fabric.barrier()
    return {**comparison, "out": str(folder)}


def _compared(
    job: Job,
    recipes: Mapping[str, schema.Recipe],
    students: Sequence[Cell],
    found: Sequence[teachers.Candidate],
    student: nn.Module,
    rules: Rules,
) -> dict[str, Any]:
    """Train and test every method with every seed: what compare.json holds."""
    results: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in recipes}
    diagnosis = examine(replace(job, recipe=_taught(recipes)), student, found)
    for cell in students:
        own = replace(job, recipe=cell.recipe, out=job.out / cell.name)
        finished = own.out / RESULT
        if not (job.resume and from_first(job.fabric, finished.exists)):
            if job.machine.progress and job.fabric.is_global_zero:
                tell(f"{cell.method}, seed {cell.seed}")
            _carry_out(own, cell, found)
        results[cell.method][cell.seed] = from_first(
            job.fabric,
            lambda: with_hits(own.out),  # noqa: B023
        )
    return {
        "recipe": job.recipe.title,
        "data": job.data.name,
        "device": job.fabric.device.type,
        "epochs": job.recipe.epochs,
        "seeds": sorted({cell.seed for cell in students}),
        **trial(job.recipe),
        "teacher": [teacher_entry(candidate, job) for candidate in found],
        **diagnosis,
        "teacher_outputs": job.outputs.entries(),
        "methods": _labelled(summarise(results, rules), recipes),
        "environment": environment(),
    }


def with_hits(folder: Path) -> dict[str, Any]:
    """A finished student's result, with the test samples that it gets right under "hits"."""
    return {**read_result(folder), "hits": hits.read(folder)}


def _labelled(methods: dict[str, Any], recipes: Mapping[str, schema.Recipe]) -> dict[str, Any]:
    """The methods with a label for the recipe's own way; their names stay."""
    if OWN in methods:
        methods[OWN]["label"] = own_label(recipes[OWN], [name for name in methods if name != OWN])
    return methods


def _taught(recipes: Mapping[str, schema.Recipe]) -> schema.Recipe:
    """The first compared recipe that hears the teacher, or else the first; its temperature is the diagnosis's."""
    rivals = [one for name, one in recipes.items() if name != SCRATCH]
    return next((one for one in rivals if one.distill.scheme in schema.TAUGHT), rivals[0])


def _carry_out(job: Job, cell: Cell, found: Sequence[teachers.Candidate]) -> None:
    """Train and test one method with one seed, and write its result; an interrupted training goes on."""
    if job.fabric.is_global_zero:
        identity.write(job.out, cell.made_of)
        write_text(job.out / RECIPE, dump(job.recipe))
    shipped = student = components.model(job.recipe.student, job.data, job.recipe.seed)
    if found:
        components.begin(student, job.recipe.student, found[0].module)
    judge = teachers.teacher_output(found, mix=job.recipe.ensemble) if found else None
    ensemble: Teacher | None = None
    if cell.method == SCRATCH:
        scheme = components.alone(student, job.recipe, job.data)
        training = job.train(scheme, "student")
    elif cell.method == BACKBONE:
        scheme = components.on_labels(student, job.recipe.student, job.recipe, job.data)
        training = job.train(scheme, "student")
    else:
        distilled = distil(job, student, found)
        scheme, training, ensemble = distilled.scheme, distilled.training, distilled.ensemble
        shipped = scheme.student  # of some methods another network
    right = hits.Hits(scheme.task, scheme.chosen)
    tested = job.test(scheme, judge, right.hear)
    if cell.method == BACKBONE:
        deepest = job.recipe.student.options["exit"]
        tested[f"test_{tested['monitor']}/exit {deepest}/{deepest}"] = score(tested)
    if ensemble is not None:
        tested["ensemble_score"] = score(job.test_teacher(ensemble))
    if job.fabric.is_global_zero:
        right.write(job.out)
        about = {"method": cell.method, "seed": cell.seed, "identity": identity.digest(cell.made_of)}
        about["parameters"] = parameter_count(shipped)
        write_json(job.out / RESULT, {**about, **tested, **training})
    job.fabric.barrier()
