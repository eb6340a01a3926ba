"""A recipe's teacher, examined before it teaches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.data import make_loader
from limbeck.engine.callbacks.progress import tell
from limbeck.errors import RequestError
from limbeck.measure.diagnosis import Diagnosis, diagnose
from limbeck.models import parameter_count
from limbeck.recipes import schema
from limbeck.runs import components, teachers
from limbeck.runs.checks import dry_run
from limbeck.runs.machine import Machine
from limbeck.runs.settled import settled
from limbeck.runs.stages import assemble
from limbeck.runs.temperatures import temperature
from limbeck.runs.train import Job, places
from limbeck.runs.written_out import with_terms
from limbeck.teachers import StoredTeacher, Teacher


def diagnose_recipe(recipe: schema.Recipe, *, root: Path, machine: Machine | None = None) -> dict[str, Any]:
    """Train the recipe's teacher, if no earlier run has kept it, and say what it has to teach; train no student.

    Args:
        recipe: Whose teacher; its terms' temperature, and its seed, which picks the training samples.
        root: Folder of the data.
        machine: Devices and display.

    Returns:
        "recipe", "data", "device", "teacher" (a list, each with its parameters and training) and "diagnosis".

    Raises:
        RequestError: The recipe has no teacher, or something does not fit; found before anything is trained.
        RunError: The training failed.
    """
    if not recipe.teachers:
        raise RequestError(
            f"recipe {recipe.name} has no teacher to diagnose; schemes with a teacher: {', '.join(schema.TAUGHT)}"
        )
    machine = machine or Machine()
    data = components.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    if not (task := components.task(recipe, data)).classifies_samples:
        raise RequestError(f"a diagnosis is about classifiers, whose soft labels it looks at, and not about {task!r}")
    student = components.model(recipe.student, data, recipe.seed)
    dry_run(recipe, student, found, data)
    recipe = settled(recipe, student, data, machine)
    fabric = machine.fabric(recipe.precision)
    teachers.train_apart(found, recipe, data, machine)
    written = with_terms(recipe, lambda: places(recipe, student, found, data), {})
    teacher = teachers.as_one(found, mix=recipe.ensemble, temperature=temperature(written))
    diagnosis = _examine(Job(written, data, machine, fabric, Path()), teacher, teacher)
    return {
        "recipe": recipe.title,
        "data": data.name,
        "device": fabric.device.type,
        "teacher": [
            {
                "parameters": parameter_count(one.module),
                "epochs": one.epochs,
                "seconds": one.seconds,
                "source": one.source,
            }
            for one in found
        ],
        "diagnosis": diagnosis.as_dict(),
    }


def examine(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> dict[str, Any]:
    """The diagnosis of who teaches the student, told on stderr: {"diagnosis": figures}; {} where nobody does, and of
    other teachers than classifiers.

    Where teacher outputs are precomputed for every sample, that is done here, and the student's training finds it done.
    """
    task = components.task(job.recipe, job.data)
    if not found or job.recipe.distill.scheme not in schema.TAUGHT or not task.classifies_samples:
        return {}
    recipe, _, online = assemble(job.recipe, copy.deepcopy(student), found, job.data)
    if online is None:
        return {}
    guide, _ = job.precompute(online, found)
    drawn = isinstance(guide, StoredTeacher) and guide.coding.draws is not None
    diagnosis = _examine(replace(job, recipe=recipe), online, online if drawn else guide)
    line = diagnosis.warning or (diagnosis.summary if job.machine.progress else None)
    if line and job.fabric.is_global_zero:
        tell(line)
    return {"diagnosis": diagnosis.as_dict()}


def _examine(job: Job, teacher: Teacher, guide: Teacher) -> Diagnosis:
    """Ask the guide about training samples as the student first sees them, and the teacher about held-out ones."""
    recipe, data, device = job.recipe, job.data, job.fabric.device
    workers = recipe.data.workers
    views = components.views(recipe.data, data)
    batch = min(recipe.data.batch_size, len(data.train))
    return diagnose(
        teacher,
        make_loader(data.train, batch, shuffle=True, seed=recipe.seed, workers=workers, device=device, views=views),
        job.held_out(data.validation or data.test),
        cached=guide,
        temperature=temperature(recipe),
        name="validation" if data.validation else "test",
        device=device,
    )
