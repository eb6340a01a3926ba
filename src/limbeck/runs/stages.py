"""What must be trained before the student: assistants, earlier generations, a hint stage.

Each is one more training by the same engine; what follows takes its result as teacher, or as its start.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from limbeck.data import DataSet
from limbeck.distillers import Scheme
from limbeck.distillers.term import BoundTerm
from limbeck.engine.batches.source import Source
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.first.answers import check_mixing
from limbeck.engine.first.batch import settle
from limbeck.notices import tell
from limbeck.options import fitting
from limbeck.recipes import schema
from limbeck.runs import components, learners, teachers
from limbeck.runs.outputs.given_teacher import given_teacher
from limbeck.runs.train import Job, places
from limbeck.runs.written_out import parts_of, shipped, with_terms
from limbeck.seeds import derive, seeded
from limbeck.teachers import EnsembleTeacher, ModuleTeacher, StoredTeacher, Teacher, VirtualTeacher


@dataclass
class Start:
    """What the student's own training starts from.

    Attributes:
        found: Who teaches it.
        student: The network, possibly trained already.
        recipe: How the rest is trained.
        seconds: What came before.
        previous: The generations before it.
        kept: The losses with a state that were trained before, by their names.
    """

    found: Sequence[teachers.Candidate]
    student: nn.Module
    recipe: schema.Recipe
    seconds: float = 0.0
    previous: Sequence[nn.Module] = ()
    kept: Mapping[str, nn.Module] = field(default_factory=dict)


@dataclass
class Distilled:
    """A trained student.

    Attributes:
        scheme: The student with what was trained beside it.
        teacher: Who taught it, online, several averaged at temperature 1; None for schemes without a teacher.
        training: Its epochs, and the seconds of all that its training took.
        ensemble: It and all generations before it, as one; None without generations.
        guide: What gave the teacher's outputs in its training, cached or online; None where no loss term used them.
        taught: Whether it was distilled; a baseline learns from labels alone.
    """

    scheme: Scheme
    teacher: Teacher | None
    training: dict[str, Any]
    ensemble: Teacher | None = None
    guide: Teacher | None = None
    taught: bool = True


def begun(job: Job, found: Sequence[teachers.Candidate]) -> tuple[nn.Module, Teacher | None]:
    """The job's student at its start, which may be cut out of its trained teacher; and who it is compared with."""
    recipe = job.recipe
    student = components.model(recipe.student, job.data, recipe.seed)
    if not found:
        return student, None
    components.begin(student, recipe.student, found[0].module)
    return student, teachers.as_one(found, mix=recipe.ensemble)


def distil(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> Distilled:
    """Train a student as the recipe says, with all that must be trained before it."""
    start = _started(job, student, found)
    recipe, scheme, online = assemble(start.recipe, start.student, start.found, job.data, start.kept)
    guide, asking = _guide(job, scheme, online, start.found)
    if online is not None and guide is not online and job.fabric.is_global_zero:  # else the training says it
        for line in check_mixing(online, scheme.teacher_temperatures):
            tell(line)
    training = replace(job, recipe=recipe).train(scheme, "student", guide, online)
    training["seconds"] = round(training["seconds"] + asking + start.seconds, 3)
    if guide is not None and guide is not online:  # its outputs were there before the first step
        training["teacher_seconds"] = round(asking, 3)
    spec = recipe.student
    own: dict[str, Any] = {
        "inputs": components.inputs(spec),
        "output": components.output(spec, recipe, job.data),
    }
    everyone = [ModuleTeacher(one, **own) for one in (*start.previous, scheme.student)]
    judge = teachers.as_one(start.found, mix=recipe.ensemble) if isinstance(online, EnsembleTeacher) else online
    if isinstance(judge, StoredTeacher):  # which knows the training samples alone
        judge = None
    return Distilled(scheme, judge, training, EnsembleTeacher(everyone) if start.previous else None, guide)


def _guide(
    job: Job, scheme: Scheme, online: Teacher | None, found: Sequence[teachers.Candidate]
) -> tuple[Teacher | None, float]:
    """Who is asked in a training, its outputs stored if that pays; and the seconds that asking took before."""
    if online is None or not uses_teacher(scheme):
        return None, 0.0
    return (online, 0.0) if scheme.generates else job.precompute(online, found)


def assemble(
    recipe: schema.Recipe,
    student: nn.Module,
    found: Sequence[teachers.Candidate],
    data: DataSet,
    kept: Mapping[str, nn.Module] | None = None,
) -> tuple[schema.Recipe, Scheme, Teacher | None]:
    """The recipe with its terms written out, the student with its losses, and who gives the teacher outputs.

    Where the method ships another network than the student, the recipe's student is that one, and so is the scheme's.
    """
    start = functools.partial(places, recipe, student, found, data)
    own = shipped(recipe, start)
    recipe = with_terms(recipe, start, kept or {})
    if own is not None:
        recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update=own.options)})
        with seeded(derive(recipe.seed, "shipped")):
            student = own.make()
    scheme = learners.scheme(student, recipe, data)
    if recipe.distill.scheme == "teacher-free":
        options = fitting("scheme teacher-free", VirtualTeacher, recipe.distill.options, given={"self", "classes"})
        return recipe, scheme, VirtualTeacher(data.classes, **options)
    if recipe.distill.scheme in ("self", "mutual", "mean-teacher", "class-wise"):
        return recipe, scheme, None
    online = given_teacher(recipe, data) if recipe.stored is not None else _taught_by(found, recipe, scheme)
    return recipe, scheme, online


def _taught_by(
    found: Sequence[teachers.Candidate], recipe: schema.Recipe, scheme: Scheme, logits: bool = True
) -> Teacher:
    """The teachers as one, several averaged at the temperature of the first term that reads their logits."""
    temperature = next(iter(scheme.teacher_temperatures), 1.0)
    return teachers.as_one(found, scheme.teacher_taps, logits, mix=recipe.ensemble, temperature=temperature)


def schemes(
    recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet
) -> Iterator[tuple[schema.Recipe, Scheme, Teacher | None]]:
    """What `assemble` makes for each stage of a student's training, for copies of it.

    Without a teacher, the student's form stands in for an earlier generation of it.
    """
    itself = _as_teacher(recipe.student)
    output = components.output(itself, recipe, data)
    stand_in = list(found) or [teachers.Candidate(itself, "student", copy.deepcopy(student), output)]
    parts, rest = parts_of(recipe, lambda: places(recipe, student, stand_in, data))
    for part in (*(part.recipe for part in parts), rest):
        yield assemble(part, copy.deepcopy(student), stand_in, data)


def _as_teacher(spec: schema.Model) -> schema.Teacher:
    """A student that teaches what comes after it."""
    return schema.Teacher.model_validate(spec.model_dump(exclude=schema.OF_STUDENTS))


def uses_teacher(scheme: Scheme) -> bool:
    """Whether anything in a student's loss comes from a teacher."""
    return bool(scheme.teacher_taps) or scheme.teacher_logits


def _started(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> Start:
    begun = Start(found, student, job.recipe)
    return _STARTS.get(job.recipe.distill.scheme, _stages)(job, begun)


def _assistants(job: Job, start: Start) -> Start:
    """Teacher → assistant → … → student: each is taught by the one before (Mirzadeh et al., arXiv:1902.03393)."""
    for number, spec in enumerate(job.recipe.assistants, start=1):
        module = components.model(spec, job.data, derive(job.recipe.seed, "assistant", number))
        recipe = job.recipe.model_copy(update={"student": spec})
        # It is another network, and a teacher to the students that are compared: how it is compiled is its own matter.
        start = _next_teacher(replace(job, recipe=recipe, compile=AUTO), f"assistant-{number}", module, start)
    return start


def _generations(job: Job, start: Start) -> Start:
    """Generation 1 learns from labels, each later one also from the one before (Furlanello et al., arXiv:1805.04770).

    The student itself is the last generation.
    """
    start = replace(start, found=())
    previous = []
    for number in range(1, job.recipe.distill.options.get("generations", 3)):
        module = components.model(job.recipe.student, job.data, derive(job.recipe.seed, "generation", number))
        start = _next_teacher(job, f"generation-{number}", module, start)
        previous.append(module)
    return replace(start, previous=previous)


def _stages(job: Job, start: Start) -> Start:
    """The trainings that a method, or the scheme two-stage, has before the student's own (arXiv:1412.6550 and others).

    They are a part of the recipe's epochs. In each the teacher runs only as deep as its last tap.
    """
    if not start.found:
        return start
    parts, rest = parts_of(job.recipe, lambda: places(job.recipe, start.student, start.found, job.data))
    for part in parts:
        _, scheme, _ = assemble(part.recipe, start.student, start.found, job.data)
        online = _taught_by(start.found, part.recipe, scheme, scheme.teacher_logits)
        guide, asking = job.precompute(online, start.found)
        training = replace(job, recipe=part.recipe).train(scheme, part.phase, guide, online)
        if not all(bound.ready for bound in _bound(scheme)):  # it was trained before the run was resumed
            _size(scheme, online, job)
        scheme.train()  # and what was in eval mode before is so again
        seconds = start.seconds + training["seconds"] + asking
        start = replace(start, seconds=seconds, kept={**start.kept, **losses_of(scheme)})
    return replace(start, recipe=rest)


def losses_of(scheme: Scheme) -> dict[str, nn.Module]:
    """The losses with a state that were trained beside a student, by their names."""
    return {type(one.loss).__name__: one.loss for one in _bound(scheme) if isinstance(one.loss, nn.Module)}


def _bound(scheme: Scheme) -> list[BoundTerm]:
    return [module for module in scheme.modules() if isinstance(module, BoundTerm)]


def _size(scheme: Scheme, teacher: Teacher, job: Job) -> None:
    """Give a scheme's losses their form; what they had learned comes with the checkpoint of the training behind."""
    batch = Source(job.training_loader(), job.fabric.device).first()
    settle(scheme, batch, job.recipe.seed)
    scheme.prepare(batch, teacher(batch))


def _next_teacher(job: Job, phase: str, module: nn.Module, start: Start) -> Start:
    """Train a module by the recipe's terms, or by the labels where nobody teaches yet; it teaches what follows."""
    asking = 0.0
    if start.found:
        _, scheme, online = assemble(job.recipe, module, start.found, job.data)
        guide, asking = job.precompute(online, start.found) if online else (None, 0.0)
        training = job.train(scheme, phase, guide, online)
    else:
        training = job.train(learners.alone(module, job.recipe, job.data), phase)
    spec = _as_teacher(job.recipe.student)
    output = components.output(spec, job.recipe, job.data)
    one = teachers.Candidate(spec, phase, module, output, None, training["epochs"], training["seconds"], "trained")
    return replace(start, found=[one], seconds=start.seconds + training["seconds"] + asking)


_STARTS: dict[str, Callable[[Job, Start], Start]] = {
    "assistant": _assistants,
    "born-again": _generations,
}
