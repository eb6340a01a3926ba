"""A student of a comparison is trained and tested: in this process, or in one of several that work side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.compare import groups
from limbeck.compare.cells import BACKBONE, BASELINE, Cell
from limbeck.compare.groups import Group, group_of
from limbeck.engine.devices.fabric import from_first
from limbeck.engine.saving.files import write_json, write_text
from limbeck.errors import RunError, whose
from limbeck.models import parameter_count
from limbeck.notices import speaking_for, tell
from limbeck.recipes import schema
from limbeck.recipes.read import dump
from limbeck.runs import components, hits, identity, learners, quantized, teachers
from limbeck.runs.entry import check_finite, score
from limbeck.runs.folder import RECIPE, RESULT, read_result
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.ledger import Ledger, Outputs
from limbeck.runs.parallel.processes import Pool, number
from limbeck.runs.stages import Distilled, begun, distil
from limbeck.runs.train import Job
from limbeck.teachers import Teacher


@dataclass(frozen=True)
class Order:
    """All that another process needs to train one student.

    Attributes:
        cell: The student.
        recipe: The comparison's, with the student's teacher.
        group: That teacher's number.
        root: Folder of the data.
        folder: That of the comparison, which the process can write.
        machine: Devices and display.
        resume: Whether an interrupted training goes on.
        compile: What was decided for all students.
        trainings: How many students have the same teacher.
        outputs: Where teacher outputs came from, as far as that is known.
        shared: Where the processes share those in memory.
    """

    cell: Cell
    recipe: schema.Recipe
    group: int
    root: Path
    folder: Path
    machine: Machine
    resume: bool
    compile: str | None
    trainings: int
    outputs: Mapping[str, Outputs]
    shared: Path | None


def train_all(students: Sequence[Cell], among: Sequence[Group], job: Job, root: Path, pool: Pool | None) -> None:
    """Train those students that have no result yet: one after the other, or by the processes of a pool."""
    todo = [cell for cell in students if not _finished(cell, job)]
    if pool is None:
        for cell in todo:
            group = among[group_of(cell.seed, len(among))]
            _announce(cell, job)
            carry_out(replace(job, recipe=cell.recipe, out=job.out / cell.name), cell, group.found)
        return
    orders = [_order(cell, among[group_of(cell.seed, len(among))], job, root) for cell in todo]
    for noted in pool.map(train, orders):
        job.outputs.merge(noted)


def results(students: Sequence[Cell], job: Job) -> dict[str, dict[int, dict[str, Any]]]:
    """The results of trained students by method and seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in students:
        folder = job.out / cell.name
        found.setdefault(cell.method, {})[cell.seed] = from_first(job.fabric, lambda: with_hits(folder))  # noqa: B023
    return found


def with_hits(folder: Path) -> dict[str, Any]:
    """A finished student's result, with the test samples that it gets right under "hits"."""
    return {**read_result(folder), "hits": hits.read(folder)}


def train(order: Order) -> dict[str, Outputs]:
    """Train one student in a process of a pool; gives where the teacher outputs came from that were not known yet."""
    if not order.folder.is_dir():
        raise RunError(
            f"{order.folder} cannot be seen by this machine; processes on other machines need a shared file system for "
            "the comparison's folder, the data and limbeck's cache (LIMBECK_CACHE)"
        )
    with speaking_for(f"{order.cell.method}, seed {order.cell.seed}"):
        job, found = _begun(order)
        before = job.outputs.known
        _announce(order.cell, job)
        carry_out(replace(job, recipe=order.cell.recipe, out=order.folder / order.cell.name), order.cell, found)
        return {key: one for key, one in job.outputs.known.items() if before.get(key) != one}


_BEGUN: dict[tuple[Path, int], tuple[Job, list[teachers.Candidate]]] = {}
"""What this process has loaded for the students of a teacher: data, teacher, and its outputs in memory."""


def _begun(order: Order) -> tuple[Job, list[teachers.Candidate]]:
    key = order.folder, order.group
    if key not in _BEGUN:
        _BEGUN.clear()  # one teacher's outputs at a time
        machine = order.machine.one_device(number())
        data = components.data(order.recipe.data, order.root)
        found = groups.candidates(order.recipe, order.group, data, machine)
        for one in found:
            teachers.train(one, order.recipe, data, machine, order.folder, resume=True, retrain=False)
        fabric = machine.fabric(order.recipe.precision)
        outputs = Ledger(known=order.outputs)
        job = Job(
            order.recipe, data, machine, fabric, order.folder, order.resume, order.compile, order.trainings,
            outputs=outputs, shared=order.shared,
        )  # fmt: skip
        _BEGUN[key] = job, found
    return _BEGUN[key]


def _order(cell: Cell, group: Group, job: Job, root: Path) -> Order:
    machine = replace(job.machine, loggers=())
    return Order(
        cell, group.recipe, group.number, root.absolute(), job.out.absolute(), machine, job.resume, job.compile,
        job.trainings, job.outputs.known, job.shared,
    )  # fmt: skip


def _finished(cell: Cell, job: Job) -> bool:
    return job.resume and from_first(job.fabric, (job.out / cell.name / RESULT).exists)


def _announce(cell: Cell, job: Job) -> None:
    if job.machine.progress and job.fabric.is_global_zero:
        tell(f"{cell.method}, seed {cell.seed}")


def carry_out(job: Job, cell: Cell, found: Sequence[teachers.Candidate]) -> None:
    """Train and test one method with one seed, and write its result; an interrupted training goes on."""
    if job.fabric.is_global_zero:
        identity.write(job.out, cell.made_of)
        write_text(job.out / RECIPE, dump(job.recipe))
    with whose(f"{cell.method}, seed {cell.seed}"):
        student, judge = begun(job, found)
        trained = _trained(replace(job, recipe=quantized.before(job.recipe)), cell, student, found)
        tested, right = _tested(job, trained, judge)
        check_finite(tested)
    if cell.method == BACKBONE:
        deepest = job.recipe.student.options["exit"]
        tested[f"test_{tested['monitor']}/exit {deepest}/{deepest}"] = score(tested)
    if trained.ensemble is not None:
        tested["ensemble_score"] = score(job.test_teacher(trained.ensemble))
    if job.fabric.is_global_zero:
        right.write(job.out)
        about = {"method": cell.method, "seed": cell.seed, "identity": identity.digest(cell.made_of)}
        about["parameters"] = parameter_count(trained.scheme.student)  # of some methods another network
        write_json(job.out / RESULT, {**about, **tested})
    job.fabric.barrier()


def _trained(job: Job, cell: Cell, student: nn.Module, found: Sequence[teachers.Candidate]) -> Distilled:
    """The student by its cell's method; the baseline and the backbone have no teacher."""
    if cell.method == BASELINE:
        scheme = learners.alone(student, job.recipe, job.data)
    elif cell.method == BACKBONE:
        scheme = learners.on_labels(student, job.recipe.student, job.recipe, job.data)
    else:
        return distil(job, student, found)
    return Distilled(scheme, None, job.train(scheme, "student"), taught=False)


def _tested(job: Job, trained: Distilled, judge: Teacher | None) -> tuple[dict[str, Any], hits.Hits]:
    """The student's test figures, its epochs and seconds, and what it gets right; where the recipe quantises it, those
    of its int8 file, and the figures in fp32 beside them.
    """
    scheme = trained.scheme
    fp32 = hits.Hits(scheme.task, scheme.chosen)
    tested = job.test(scheme, judge, fp32.hear)
    if job.recipe.quantize is None:
        return {**tested, **trained.training}, fp32
    int8 = hits.Hits(scheme.task, hits.CHOSEN)
    found = quantized.quantised(job, trained, "student", judge, int8.hear)
    both = {key: trained.training[key] + found[key] for key in ("epochs", "seconds")}
    return {**trained.training, **found, **both, "fp32": {**tested, "epochs": trained.training["epochs"]}}, int8
