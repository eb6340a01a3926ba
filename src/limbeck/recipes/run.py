"""The main job: a teacher, the student alone (baseline) and the distilled student, compared on the test set."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.distillers import Distiller
from limbeck.engine.files import write_json
from limbeck.models import parameter_count
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.chain import distil, rehearse
from limbeck.recipes.diagnosis import examine
from limbeck.recipes.folder import RESULT, choose, open_folder
from limbeck.recipes.job import Job, settled
from limbeck.recipes.machine import Machine


def run(
    recipe: schema.Recipe,
    *,
    root: Path,
    out: Path | None = None,
    resume: bool = False,
    baseline: bool = True,
    retrain_teacher: bool = False,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """Carry out a recipe.

    Args:
        recipe: What to do.
        root: Folder of the data.
        out: Run folder; runs/NAME by default.
        resume: Go on with the run in `out`.
        baseline: Train the same student without the teacher too: same start, epochs and data order.
        retrain_teacher: Train the teacher even if an earlier run has kept it.
        machine: Devices and display.

    Returns:
        What result.json holds, and "out", the run folder.

    Raises:
        RequestError: Something does not fit; found before anything is written.
        RunError: A training failed.
    """
    machine = machine or Machine()
    data = build.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    student = build.model(recipe.student, data, recipe.seed)
    alone = build.alone(copy.deepcopy(student), recipe)
    rehearse(recipe, student, found, data)
    recipe = settled(recipe, student, data, machine)
    fabric = machine.fabric(recipe.precision)

    out = Path(fabric.broadcast(choose(out, recipe.name, resume)))
    if fabric.is_global_zero:
        open_folder(out, recipe, resume)
    fabric.barrier()
    for one in found:
        teachers.train(one, recipe, data, machine, out, resume=resume, retrain=retrain_teacher)
    job = Job(recipe, data, machine, fabric, out, resume)
    diagnosis = examine(job, student, found)
    trained = job.train(alone, "baseline") if baseline else {}
    distilled = distil(job, student, found)
    size = parameter_count(student)
    live = distilled.teacher
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "data": data.name,
        "seed": recipe.seed,
        "device": fabric.device.type,
        "teacher": _teachers(found, job),
        **diagnosis,
    }
    if baseline:
        result["baseline"] = {"parameters": size, **job.test(alone, live), **trained}
    result["distilled"] = {"parameters": size, **job.test(distilled.scheme, live), **distilled.training}
    if job.memory:
        result["signal"] = [kept.reason for kept in job.memory.values()]
    if distilled.ensemble:
        result["ensemble"] = job.test_teacher(distilled.ensemble)
    if fabric.is_global_zero:
        write_json(out / RESULT, result)
    return {**result, "out": str(out)}


def _teachers(found: Sequence[teachers.Candidate], job: Job) -> dict[str, Any] | list[dict[str, Any]]:
    """One entry as it is, several or none as a list."""
    entries = [teacher_entry(one, job) for one in found]
    return entries[0] if len(entries) == 1 else entries


def teacher_entry(one: teachers.Candidate, job: Job) -> dict[str, Any]:
    """What result.json says of a teacher."""
    tested = job.test(Distiller(one.module, inputs=build.inputs(one.spec)))
    kept = str(one.kept / "teacher.safetensors") if one.kept else one.spec.weights
    return {
        "parameters": parameter_count(one.module),
        **tested,
        "epochs": one.epochs,
        "seconds": one.seconds,
        "source": one.source,
        "weights": kept,
    }
