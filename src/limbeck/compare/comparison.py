"""A comparison: trains what is missing in its folder, and sums up all that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from limbeck.compare import groups
from limbeck.compare.asked import Asked, asked_for
from limbeck.compare.cells import (
    BACKBONE,
    BASELINE,
    OWN,
    Cell,
    cells,
    completed,
    recipe_of,
    weed,
    weed_teachers,
)
from limbeck.compare.equal_time import Seconds, check_seconds, equal_time
from limbeck.compare.groups import Group, group_of, with_teacher
from limbeck.compare.labels import own_label
from limbeck.compare.sequential import FILE as UNTIL
from limbeck.compare.sequential import news
from limbeck.compare.students import results, train_all
from limbeck.compare.verdicts import summarise, undecided
from limbeck.data import DataSet
from limbeck.data.overlap import overlap_note
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.fabric import from_first
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError
from limbeck.notices import once
from limbeck.recipes import schema
from limbeck.recipes.read import dump, recorded_variants
from limbeck.runs import components, hits, teachers
from limbeck.runs.checks import check_shares, dry_run
from limbeck.runs.compiling import decided
from limbeck.runs.diagnose import examine
from limbeck.runs.entry import trial
from limbeck.runs.folder import COMPARISON, RECIPE, choose, environment, opened
from limbeck.runs.identity import Origins
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.ledger import Ledger
from limbeck.runs.outputs.shared import sharing
from limbeck.runs.parallel.processes import Pool
from limbeck.runs.settled import settled, settled_as
from limbeck.runs.train import Job

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Students = Sequence[tuple[str, int]]
"""Methods and seeds."""


@dataclass(frozen=True)
class _Prepared:
    """What was found to fit, before anything is written."""

    recipe: schema.Recipe
    student: nn.Module
    among: Sequence[Group]
    data: DataSet
    fabric: Fabric

    def cells(self, students: Students, trained: bool = True) -> list[Cell]:
        """The students teacher by teacher; before the teachers are trained, without their weights."""
        found = []
        for group in self.among:
            own = [one for one in students if group_of(one[1], len(self.among)) == group.number]
            some = cells(group.recipes, own, group.origins)
            found += completed(some, group.origins) if trained else some
        return found


def compare(
    recipe: schema.Recipe,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    redo: bool = False,
    max_seeds: int | None = None,
    teacher_count: int = 1,
    effect: float | None = None,
    seconds: Seconds | None = None,
    variants: Mapping[str, schema.Recipe] | None = None,
    machine: Machine | None = None,
    pool: Pool | None = None,
    began: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Train the recipe's student by every method with every seed, and say what the differences show.

    Args:
        recipe: Data, teacher, student and training; its own terms are the method "recipe".
        methods: Names of `METHODS` (with a setting: "dkd:imagenet"), `SCHEMES` or `variants`, "recipe" for the recipe
            as it is, "backbone" for the deepest exit's network alone, or "baseline", which is added where missing.
        seeds: One student is trained for each; three or more show a spread.
        root: Folder of the data.
        out: Folder of the comparison; runs/compare-NAME by default.
        resume: Resume an interrupted comparison in `out`, or add methods and seeds to a finished one. All its
            students count, also those of methods and seeds that are not named again.
        redo: Resume, and train again what was made of something else: another recipe, own code, teacher or data.
        max_seeds: Add seeds where a verdict is open, up to so many (`limbeck.compare.sequential`); None adds none.
        teacher_count: Train so many teachers of different seeds; the students' seeds take turns among them.
        effect: The size of a difference of which is said how many seeds would show it; by default one point of an
            accuracy, of another score a hundredth of the baseline's.
        seconds: Train all students once more at equal wall time (`limbeck.compare.equal_time`): so many seconds, or
            "baseline" for as long as the baseline takes; None does not.
        variants: The recipe's variants that may be named, ":NAME" where a method is called so too; they differ from
            the recipe in how they distil alone.
        machine: Devices and display.
        pool: Processes that train students side by side; None trains one after the other in this one.
        began: Told the folder, before anything is trained.

    Returns:
        What compare.json holds, and "out", the folder.

    Raises:
        RequestError: Something does not fit any of the methods, or students in the folder were made of something
            else; found before anything is written.
        RunError: A training failed.
    """
    machine, variants, resume = machine or Machine(), variants or {}, resume or redo
    proposed = choose(out, f"compare-{recipe.name}", resume)
    asked = asked_for(recipe, methods, seeds, variants, max_seeds, teacher_count, effect, proposed if resume else None)
    check_seconds(seconds, recipe, adds_seeds=max_seeds is not None)
    ready = _prepared(recipe, asked, root, variants, machine)
    recipe, fabric = ready.recipe, ready.fabric
    begun = ready.cells(asked.students(asked.methods, asked.seeds), trained=False)
    chosen = {name: one for name, one in variants.items() if {name, f":{name}"} & ready.among[0].recipes.keys()}
    described = dump(recipe, {**recorded_variants(proposed / RECIPE), **chosen})
    with (
        opened(out, f"compare-{recipe.name}", described, resume, fabric, lambda at: weed(at, begun, redo)) as folder,
        once(),
        sharing(folder, pool is not None) as shared,
    ):
        began(folder)
        outputs = Ledger(folder, fabric, resume)
        trainings = max(1, (asked.plan.most if asked.plan else len(seeds)) // teacher_count)
        job = Job(
            recipe, ready.data, machine, fabric, folder, resume, trainings=trainings, outputs=outputs, shared=shared
        )
        comparison = _compared(job, asked, ready, root, redo, pool, seconds)
        if fabric.is_global_zero:
            write_json(folder / COMPARISON, comparison)
        fabric.barrier()
    return {**comparison, "out": str(folder)}


def _prepared(
    recipe: schema.Recipe, asked: Asked, root: Path, variants: Mapping[str, schema.Recipe], machine: Machine
) -> _Prepared:
    """Build what the methods need, and try each."""
    data = components.data(recipe.data, root)
    if not components.task(recipe, data).labelled:
        raise RequestError(
            "a comparison stands beside the baseline, which learns from labels, and this task has none: use limbeck run"
        )
    found = [groups.candidates(with_teacher(recipe, n), n, data, machine) for n in range(asked.teachers)]
    student = components.model(recipe.student, data, recipe.seed)
    names = dict.fromkeys((*asked.methods, *(method for method, _ in asked.before)))
    recipes = {name: recipe_of(recipe, name, variants, student) for name in names}
    for name, one in recipes.items():
        dry_run(recipe if name == BACKBONE else one, student, found[0], data)
    recipe = settled(recipe, student, data, machine)
    recipes = {name: settled_as(recipe, one) for name, one in recipes.items()}
    fabric = machine.fabric(recipe.precision)
    check_shares(recipe, found[0], fabric.world_size)
    if shared := overlap_note(data):
        tell(shared)
    among = []
    for number, some in enumerate(found):
        own = {name: with_teacher(one, number) for name, one in recipes.items()}
        among.append(Group(number, own, some, Origins(student, some, data, root)))
    return _Prepared(recipe, student, among, data, fabric)


def _train_teachers(job: Job, among: Sequence[Group]) -> None:
    """Bring the teachers to their weights, and, of several devices, into shards where the recipe says so."""
    every = [one for group in among for one in group.found]
    made_of = among[0].origins.of_teachers(job.recipe)
    from_first(job.fabric, lambda: weed_teachers(job.out, every, made_of))
    for group in among:
        for one in group.found:
            teachers.train(one, group.recipe, job.data, job.machine, job.out, resume=job.resume, retrain=False)
        teachers.share_out(group.found, job.fabric)


def _compared(
    job: Job, asked: Asked, ready: _Prepared, root: Path, redo: bool, pool: Pool | None, seconds: Seconds | None
) -> dict[str, Any]:
    """Train and test every method with every seed, and add seeds where that was asked for: what compare.json holds."""
    if asked.plan is not None and job.fabric.is_global_zero:
        write_json(job.out / UNTIL, asked.plan.as_dict())
    _train_teachers(job, ready.among)
    recipes = ready.among[0].recipes
    from_first(job.fabric, lambda: weed(job.out, ready.cells(asked.students(asked.methods, asked.seeds)), redo))
    taught = [one for name, one in recipes.items() if name not in (BASELINE, BACKBONE)]
    job = decided(job, taught, ready.student, ready.among[0].found)
    diagnosis = examine(replace(job, recipe=_taught(recipes)), ready.student, ready.among[0].found)
    open_: Sequence[str] = asked.methods
    trained: dict[tuple[str, int], Cell] = {}
    methods: dict[str, Any] = {}
    samples = hits.scored(components.task(job.recipe, job.data), len(job.data.test))
    for seeds in asked.looks():
        new = [cell for cell in ready.cells(asked.students(open_, seeds)) if (cell.method, cell.seed) not in trained]
        from_first(job.fabric, lambda: weed(job.out, new, redo))  # noqa: B023
        train_all(new, ready.among, job, root, pool)
        trained |= {(cell.method, cell.seed): cell for cell in new}
        counted = [cell for cell in trained.values() if asked.counts(cell.method, cell.seed, seeds)]
        every = sorted(counted, key=lambda cell: (list(recipes).index(cell.method), cell.seed))
        rules = asked.rules(samples, [cell.seed for cell in every])
        found = results(every, job)
        methods = summarise(found, rules)
        open_ = [name for name in undecided(methods) if name in asked.methods]
        if asked.plan is not None and job.machine.progress:
            tell(news(methods, open_, len(seeds), asked.plan))
        if not open_:
            break
    timed: dict[str, Any] = {}
    if seconds is not None:
        timed["equal_time"] = equal_time(seconds, found, ready.among, job, root, pool, rules, redo=redo)
        timed["equal_time"]["methods"] = _labelled(timed["equal_time"]["methods"], recipes)
    numbers = sorted({seed for _, seed in trained})
    return {
        "recipe": job.recipe.title,
        "data": job.data.name,
        "device": job.fabric.device.type,
        "epochs": job.recipe.epochs,
        "seeds": numbers,
        **trial(job.recipe),
        **({"until": {**asked.plan.as_dict(), "open": open_}} if asked.plan else {}),
        **({"teachers_varied": asked.teachers} if asked.teachers > 1 else {}),
        "teacher": groups.entries(ready.among, numbers, job),
        **diagnosis,
        "teacher_outputs": job.outputs.entries(),
        "methods": _labelled(methods, recipes),
        **timed,
        "environment": {**environment(), **({"threads": pool.threads} if pool else {})},
    }


def _labelled(methods: dict[str, Any], recipes: Mapping[str, schema.Recipe]) -> dict[str, Any]:
    """The methods with a label for the recipe's own way; their names stay."""
    if OWN in methods:
        methods[OWN]["label"] = own_label(recipes[OWN], [name for name in methods if name != OWN])
    return methods


def _taught(recipes: Mapping[str, schema.Recipe]) -> schema.Recipe:
    """The first compared recipe that hears the teacher, or else the first; its temperature is the diagnosis's."""
    rivals = [one for name, one in recipes.items() if name != BASELINE]
    return next((one for one in rivals if one.distill.scheme in schema.TAUGHT), rivals[0])
