"""One decision about torch.compile for all students of a run or a comparison, which must differ in the method alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from torch import nn

from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.compiling import Choice, choose_compile, may_gain
from limbeck.engine.devices.fabric import AUTO, from_first
from limbeck.engine.first.batch import settle
from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError
from limbeck.models import move
from limbeck.recipes import schema
from limbeck.runs import learners, teachers
from limbeck.runs.stages import schemes
from limbeck.runs.train import Job

DECISION = "compile.json"


def decided(job: Job, recipes: Sequence[schema.Recipe], student: nn.Module, found: Sequence[teachers.Candidate]) -> Job:
    """The job with the mode in which all its students are trained, if its recipe says auto.

    It is tried once, on the student without a teacher, and kept in the folder for when the job is resumed. Where a
    method's student cannot be compiled, none is.

    Args:
        job: A run, or a comparison.
        recipes: By which its students are taught.
        student: The network, as it starts.
        found: The teachers.

    Raises:
        RequestError: The students of a resumed comparison are compiled, and a method that has been added cannot be.
    """
    if job.recipe.compile != AUTO:
        return job
    path = job.out / DECISION
    choice: Choice = from_first(
        job.fabric,
        lambda: (
            Choice(**json.loads(path.read_text(encoding="utf-8")))
            if job.resume and path.exists()
            else _tried(job, recipes, student, found)
        ),
    )
    if choice.mode and (reason := _why_uncompiled(job, recipes, student, found)):
        raise RequestError(
            f"the students in {job.out} are compiled ({path.name}), and that of an added method cannot be: {reason}; "
            "compare it in another folder, or with compile: null"
        )
    return replace(job, compile=choice.mode)


def _tried(
    job: Job, recipes: Sequence[schema.Recipe], student: nn.Module, found: Sequence[teachers.Candidate]
) -> Choice:
    alone = learners.alone(copy.deepcopy(student), job.recipe, job.data)
    if not may_gain(alone, job.fabric):
        return Choice(None)
    if reason := _why_uncompiled(job, recipes, student, found):
        choice = Choice(None, f"no student is compiled: {reason}")
    else:
        move(alone, job.fabric.device)
        loader = job.training_loader()
        example = next(iter(loader))
        settle(alone, example, job.recipe.seed)
        choice = choose_compile(alone, example, job.fabric, job.recipe.epochs * len(loader))
    if choice.reason and job.machine.progress:
        tell(f"all students: {choice.reason}")
    write_json(job.out / DECISION, asdict(choice))
    return choice


def _why_uncompiled(
    job: Job, recipes: Sequence[schema.Recipe], student: nn.Module, found: Sequence[teachers.Candidate]
) -> str:
    """Why a student cannot be compiled; "" where all can."""
    reasons = (scheme.why_uncompiled for one in recipes for _, scheme, _ in schemes(one, student, found, job.data))
    return next(filter(None, reasons), "")
