"""What must be trained before the student: assistants, earlier generations, a hint stage.

Each is one more training by the same engine; what follows takes its result as teacher, or as its start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from limbeck.data import DataSet
from limbeck.distillers import Scheme
from limbeck.engine.devices import AUTO
from limbeck.errors import RequestError, shown
from limbeck.notices import tell
from limbeck.options import fitting
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.job import Job, places
from limbeck.recipes.methods import with_terms
from limbeck.recipes.temperatures import temperature, temperatures
from limbeck.seeds import derive
from limbeck.teachers import EnsembleTeacher, ModuleTeacher, Teacher, VirtualTeacher


@dataclass
class Lead:
    """What the student's own training begins with.

    Attributes:
        found: Who teaches it.
        student: The network, possibly trained already.
        recipe: How the rest is trained.
        seconds: What came before.
        elders: The generations before it.
    """

    found: Sequence[teachers.Candidate]
    student: nn.Module
    recipe: schema.Recipe
    seconds: float = 0.0
    elders: Sequence[nn.Module] = ()


@dataclass
class Distilled:
    """A trained student.

    Attributes:
        scheme: The student with what was trained beside it.
        teacher: Who taught it, live, several averaged at temperature 1; None for schemes without a teacher.
        training: Its epochs, and the seconds of all that its training took.
        ensemble: It and all generations before it, as one; None without generations.
    """

    scheme: Scheme
    teacher: Teacher | None
    training: dict[str, Any]
    ensemble: Teacher | None = None


def distil(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> Distilled:
    """Train a student as the recipe says, with all that must be trained before it."""
    lead = _lead_up(job, student, found)
    recipe, scheme, live = assemble(lead.recipe, lead.student, lead.found, job.data)
    guide, asking = job.ask_once(live, lead.found) if live else (None, 0.0)
    line = _mixed_elsewhere(recipe, live)
    if line and job.fabric.is_global_zero:
        tell(line)
    training = replace(job, recipe=recipe).train(scheme, "student", guide)
    training["seconds"] = round(training["seconds"] + asking + lead.seconds, 3)
    everyone = [ModuleTeacher(m, inputs=build.inputs(recipe.student)) for m in (*lead.elders, scheme.student)]
    judge = teachers.signal(lead.found, mix=recipe.ensemble) if isinstance(live, EnsembleTeacher) else live
    return Distilled(scheme, judge, training, EnsembleTeacher(everyone) if lead.elders else None)


def _mixed_elsewhere(recipe: schema.Recipe, live: Teacher | None) -> str | None:
    """What is said where some terms read several teachers' mean at another temperature than it was taken at."""
    read = temperatures(recipe)
    if not isinstance(live, EnsembleTeacher) or live.mix == "logits" or len(read) < 2:
        return None
    others = ", ".join(f"{one:g}" for one in read[1:])
    return (
        f"the teachers' probabilities are averaged at temperature {live.temperature:g}, that of the first term, and "
        f"read at {others} too, where the mean is another; ensemble: logits averages alike for every temperature"
    )


def assemble(
    recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet
) -> tuple[schema.Recipe, Scheme, Teacher | None]:
    """The recipe with its terms written out, the student with its losses, and who gives the signal."""
    recipe = with_terms(recipe, lambda: places(recipe, student, found, data))
    scheme = build.scheme(student, recipe, data)
    if recipe.distill.scheme == "teacher-free":
        options = fitting("scheme teacher-free", VirtualTeacher, recipe.distill.options, given={"self", "classes"})
        return recipe, scheme, VirtualTeacher(data.classes, **options)
    if recipe.distill.scheme in ("self", "mutual", "mean-teacher", "class-wise"):
        return recipe, scheme, None
    how: dict[str, Any] = {"mix": recipe.ensemble, "temperature": temperature(recipe)}
    return recipe, scheme, teachers.signal(found, scheme.teacher_taps, **how)


def schemes(
    recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet
) -> Iterator[tuple[schema.Recipe, Scheme, Teacher | None]]:
    """What `assemble` makes for each stage of a student's training, for copies of it.

    Without a teacher, the student's form stands in for an earlier generation of it.
    """
    itself = schema.Teacher.model_validate(recipe.student.model_dump())
    stand_in = list(found) or [teachers.Candidate(itself, "student", copy.deepcopy(student))]
    for part in two_stages(recipe) if recipe.distill.scheme == "two-stage" else [recipe]:
        yield assemble(part, copy.deepcopy(student), stand_in, data)


def _lead_up(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> Lead:
    begun = Lead(found, student, job.recipe)
    scheme = job.recipe.distill.scheme
    return _LEADS[scheme](job, begun) if scheme in _LEADS else begun


def _assistants(job: Job, lead: Lead) -> Lead:
    """Teacher → assistant → … → student: each is taught by the one before (Mirzadeh et al., arXiv:1902.03393)."""
    for number, spec in enumerate(job.recipe.assistants, start=1):
        module = build.model(spec, job.data, derive(job.recipe.seed, "assistant", number))
        recipe = job.recipe.model_copy(update={"student": spec})
        # It is another network, and a teacher to the students that are compared: how it is compiled is its own matter.
        lead = _next_teacher(replace(job, recipe=recipe, compile=AUTO), f"assistant-{number}", module, lead)
    return lead


def _generations(job: Job, lead: Lead) -> Lead:
    """Generation 1 learns from labels, each later one also from the one before (Furlanello et al., arXiv:1805.04770).

    The student itself is the last generation.
    """
    lead = replace(lead, found=())
    elders = []
    for number in range(1, job.recipe.distill.options.get("generations", 3)):
        module = build.model(job.recipe.student, job.data, derive(job.recipe.seed, "generation", number))
        lead = _next_teacher(job, f"generation-{number}", module, lead)
        elders.append(module)
    return replace(lead, elders=elders)


def _hint_stage(job: Job, lead: Lead) -> Lead:
    """First only a feature loss, then the recipe's terms, in the same number of epochs altogether (arXiv:1412.6550).

    In the first stage the teacher runs only as deep as its last tap.
    """
    first, rest = two_stages(job.recipe)
    resolved, scheme, _ = assemble(first, lead.student, lead.found, job.data)
    how: dict[str, Any] = {"mix": resolved.ensemble, "temperature": temperature(resolved)}
    live = teachers.signal(lead.found, scheme.teacher_taps, scheme.teacher_logits, **how)
    guide, asking = job.ask_once(live, lead.found)
    training = replace(job, recipe=resolved).train(scheme, "hint", guide)
    scheme.train()  # and what was in eval mode before is so again
    return replace(lead, recipe=rest, seconds=training["seconds"] + asking)


def two_stages(recipe: schema.Recipe) -> tuple[schema.Recipe, schema.Recipe]:
    """The recipe of the hint stage, by default half of the epochs, and that of the rest."""
    options = recipe.distill.options
    epochs = build.whole_number("hint_epochs", options.get("hint_epochs", max(1, recipe.epochs // 2)), least=1)
    if not epochs < recipe.epochs:
        raise RequestError(
            f"hint_epochs {shown(epochs)} leaves nothing of {recipe.epochs} epochs to one of the two stages"
        )
    method = options.get("hint", "fitnet")
    if not isinstance(method, str):
        raise RequestError(f"hint is the name of a method, such as fitnet, not {shown(method)}")
    hint = schema.Distill(method=method, task_weight=0.0)
    first = recipe.model_copy(update={"distill": hint, "epochs": epochs})
    return first, recipe.model_copy(update={"epochs": recipe.epochs - epochs})


def _next_teacher(job: Job, phase: str, module: nn.Module, lead: Lead) -> Lead:
    """Train a module by the recipe's terms, or by the labels where nobody teaches yet; it teaches what follows."""
    asking = 0.0
    if lead.found:
        _, scheme, live = assemble(job.recipe, module, lead.found, job.data)
        guide, asking = job.ask_once(live, lead.found) if live else (None, 0.0)
        training = job.train(scheme, phase, guide)
    else:
        training = job.train(build.alone(module, job.recipe), phase)
    spec = schema.Teacher.model_validate(job.recipe.student.model_dump())
    one = teachers.Candidate(spec, phase, module, None, training["epochs"], training["seconds"], "trained")
    return replace(lead, found=[one], seconds=lead.seconds + training["seconds"] + asking)


_LEADS: dict[str, Callable[[Job, Lead], Lead]] = {
    "assistant": _assistants,
    "born-again": _generations,
    "two-stage": _hint_stage,
}
