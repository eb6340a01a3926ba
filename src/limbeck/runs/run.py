"""The main job: a teacher, the baseline and the distilled student, compared on the test set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.data.overlap import overlap_note
from limbeck.distillers import Scheme
from limbeck.engine.saving.files import write_json
from limbeck.models import parameter_count
from limbeck.notices import tell
from limbeck.recipes import schema
from limbeck.recipes.read import dump
from limbeck.runs import components, learners, quantized, teachers
from limbeck.runs.beginning import beginning
from limbeck.runs.checks import check_shares, dry_run
from limbeck.runs.compiling import decided
from limbeck.runs.diagnose import examine
from limbeck.runs.entry import trial
from limbeck.runs.finished.read import finished_run
from limbeck.runs.folder import RESULT, opened
from limbeck.runs.identity import Origins
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.ledger import Ledger
from limbeck.runs.same import record, refuse
from limbeck.runs.settled import settled
from limbeck.runs.stages import Distilled, distil
from limbeck.runs.train import Job
from limbeck.teachers import ModuleTeacher


def run(
    recipe: schema.Recipe,
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    baseline: bool = True,
    retrain_teacher: bool = False,
    machine: Machine | None = None,
    began: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Carry out a recipe.

    Args:
        recipe: What to do.
        root: Folder of the data.
        out: Run folder; runs/NAME by default.
        resume: Resume the run in `out`; the result of a finished one is given as it is.
        baseline: Train the same student without the teacher too: same start, epochs and data order.
        retrain_teacher: Train the teacher even if an earlier run has kept it.
        machine: Devices and display.
        began: Told the folder, before anything is trained.

    Returns:
        What result.json holds, and "out", the run folder.

    Raises:
        RequestError: Something does not fit, or a resumed run was begun with another recipe, own code, teacher or
            data; found before anything is written.
        RunError: A training failed.
    """
    machine = machine or Machine()
    if resume and out is not None and (finished := finished_run(recipe, out, root, machine)) is not None:
        began(out)
        return {**finished, "out": str(out)}
    data = components.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, recipe.seed)
    baseline = baseline and components.task(recipe, data).labelled
    dry_run(recipe, student, found, data)
    recipe = settled(recipe, student, data, machine)
    alone = learners.alone(copy.deepcopy(student), recipe, data)
    fabric = machine.fabric(recipe.precision)
    check_shares(recipe, found, fabric.world_size)
    if shared := overlap_note(data):
        tell(shared)

    origins = Origins(student, found, data, root)
    begun = origins.of(recipe)
    with opened(out, recipe.name, dump(recipe), resume, fabric, lambda folder: refuse(folder, begun)) as folder:
        began(folder)
        record(folder, begun, fabric)
        if machine.progress and fabric.is_global_zero:
            tell(beginning(recipe, data, found, student, baseline=baseline, retrain=retrain_teacher))
        if data.tokenizer is not None and fabric.is_global_zero:
            data.tokenizer.save(folder)
        for one in found:
            teachers.train(one, recipe, data, machine, folder, resume=resume, retrain=retrain_teacher)
        record(folder, origins.completed(begun), fabric)
        for network in (student, alone.student) if found else ():
            components.begin(network, recipe.student, found[0].module)
        teachers.share_out(found, fabric)
        job = Job(recipe, data, machine, fabric, folder, resume, outputs=Ledger(folder, fabric, resume))
        job = decided(job, [recipe], student, found)
        result = _students(job, found, student, alone if baseline else None)
        if fabric.is_global_zero:
            write_json(folder / RESULT, result)
    return {**result, "out": str(folder)}


def _students(
    job: Job, found: Sequence[teachers.Candidate], student: nn.Module, alone: Scheme | None
) -> dict[str, Any]:
    """Train the student, before that the baseline if it is wanted, and test them: what result.json holds."""
    diagnosis = examine(job, student, found)
    whole, job = job, replace(job, recipe=quantized.before(job.recipe))
    trained = job.train(alone, "baseline") if alone else {}
    distilled = distil(job, student, found)
    result: dict[str, Any] = {
        "recipe": job.recipe.title,
        "data": job.data.name,
        "seed": job.recipe.seed,
        **trial(job.recipe),
        "device": job.fabric.device.type,
        "teacher": _teachers(found, job),
        **diagnosis,
    }
    if alone:
        size = parameter_count(alone.student)  # a plain one, now that it is trained
        result["baseline"] = {"parameters": size, **job.test(alone, distilled.teacher), **trained}
    tested = job.test(distilled.scheme, distilled.teacher)
    size = parameter_count(distilled.scheme.student)  # a method may ship another network
    result["distilled"] = {"parameters": size, **tested, **distilled.training}
    if whole.recipe.quantize:
        labelled = {"baseline": Distilled(alone, None, trained, taught=False)} if alone else {}
        result["int8"] = {
            name: quantized.quantised(whole, one, "baseline" if name == "baseline" else "student", distilled.teacher)
            for name, one in {**labelled, "distilled": distilled}.items()
        }
    if outputs := job.outputs.entries():
        result["teacher_outputs"] = outputs
    if distilled.ensemble:
        result["ensemble"] = job.test_teacher(distilled.ensemble)
    return result


def _teachers(found: Sequence[teachers.Candidate], job: Job) -> dict[str, Any] | list[dict[str, Any]]:
    """One entry as it is, several or none as a list."""
    entries = [teacher_entry(one, job) for one in found]
    return entries[0] if len(entries) == 1 else entries


def teacher_entry(one: teachers.Candidate, job: Job) -> dict[str, Any]:
    """What result.json says of a teacher."""
    labelled = components.task(job.recipe, job.data).labelled
    teacher = ModuleTeacher(one.module, inputs=components.inputs(one.spec), output=one.output)
    tested = job.test_teacher(teacher) if labelled else {}  # beside itself it would be perfect
    kept = str(one.kept / "teacher.safetensors") if one.kept else one.spec.weights
    return {
        "parameters": parameter_count(one.module),
        **tested,
        "epochs": one.epochs,
        "seconds": one.seconds,
        "source": one.source,
        "weights": kept,
    }
