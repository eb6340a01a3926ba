"""What must be trained before the student: assistants, earlier generations, a hint stage.

Each is one more training by the same engine; what follows takes its result as teacher, or as its start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory, make_loader
from limbeck.distillers import Scheme
from limbeck.engine.fit import check
from limbeck.errors import RequestError, unknown
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.job import Job, places
from limbeck.recipes.methods import with_terms
from limbeck.seeds import derive
from limbeck.taps import evaluating
from limbeck.teachers import EnsembleTeacher, ModuleTeacher, Teacher, VirtualTeacher
from limbeck.types import Batch


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
        teacher: Who taught it, live; None for schemes without a teacher.
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
    training = replace(job, recipe=recipe).train(scheme, "student", guide)
    training["seconds"] = round(training["seconds"] + asking + lead.seconds, 3)
    everyone = [ModuleTeacher(m, inputs=build.inputs(recipe.student)) for m in (*lead.elders, scheme.student)]
    return Distilled(scheme, live, training, EnsembleTeacher(everyone) if lead.elders else None)


def assemble(
    recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet
) -> tuple[schema.Recipe, Scheme, Teacher | None]:
    """The recipe with its terms written out, the student with its losses, and who gives the signal."""
    recipe = with_terms(recipe, lambda: places(recipe, student, found, data))
    scheme = build.scheme(student, recipe, data)
    if recipe.distill.scheme == "teacher-free":
        return recipe, scheme, VirtualTeacher(data.classes, **recipe.distill.options)
    if recipe.distill.scheme in ("self", "mutual", "mean-teacher", "class-wise"):
        return recipe, scheme, None
    return recipe, scheme, teachers.signal(found, scheme.teacher_taps)


def rehearse(recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet) -> None:
    """Find what does not fit before anything is written or trained.

    Raises:
        RequestError: A name, an option or a shape that does not fit.
    """
    _check_options(recipe)
    check(recipe.epochs, recipe.accumulate, recipe.keep, recipe.clip, None, validates=data.validation is not None)
    _check_views(recipe, data)
    build.optimizer(recipe.optimizer)
    build.schedule(recipe.schedule, recipe.epochs)
    views = build.views(recipe.data, data)
    next(iter(make_loader(data.train, recipe.data.batch_size, drop_last=recipe.data.drop_last, views=views)))
    # An earlier generation, or an assistant, stands in the teacher's place later: the student has its form.
    itself = schema.Teacher.model_validate(recipe.student.model_dump())
    stand_in = list(found) or [teachers.Candidate(itself, "student", copy.deepcopy(student))]
    example = next(iter(make_loader(data.train, 2)))
    _check_trainable([student, *(one.module for one in found if one.kept)])
    _check_last_batch(recipe, [student, *(one.module for one in found if one.kept)], len(data.train))
    for one in found:
        build.teacher_views(one.spec, recipe, data)
        _check_reads(one, example)
    for part in _two_stages(recipe) if recipe.distill.scheme == "two-stage" else [recipe]:
        _, scheme, live = assemble(part, copy.deepcopy(student), stand_in, data)
        if recipe.compile and scheme.reads_inside:
            raise RequestError(f"compile: {recipe.compile} takes terms on logits, and one here reads hidden tensors")
        try:
            scheme.prepare(example, live(example) if live else None)
            _check_labels(scheme, example, data)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(_cannot_read("student", recipe.student.model, example, error)) from error


@torch.no_grad()
def _check_labels(scheme: Scheme, example: Batch, data: DataSet) -> None:
    """Raise RequestError for a label, of any split, for which the student has no output."""
    with evaluating(scheme):
        outputs = scheme.predict(example.inputs).shape[1]
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        highest = -1 if split is None else int(split.targets.max())
        if highest >= outputs:
            raise RequestError(
                f"the {name} data of {data.name} has the label {highest}, and the student {outputs} outputs, for "
                "labels from 0 on; mend the labels, or build the student with more outputs"
            )


def _check_views(recipe: schema.Recipe, data: DataSet) -> None:
    split = data.train
    if recipe.data.views and not recipe.data.augment and (isinstance(split, InMemory) or not split.random):
        raise RequestError(
            "data.views counts augmented versions, and there is no data.augment; leave one out or add one"
        )
    if recipe.data.augment and isinstance(split, InMemory) and split.inputs.is_floating_point():
        low, high = float(split.inputs.min()), float(split.inputs.max())
        if low < 0 or high > 1:
            raise RequestError(
                f"augmentation takes pixels of uint8, or floats of 0–1, and these run from {low:.3g} to {high:.3g}; "
                "normalise by the model's mean and std instead"
            )


def _check_reads(one: teachers.Candidate, example: Batch) -> None:
    try:
        teachers.signal([one])(example)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(_cannot_read("teacher", one.spec.model, example, error)) from error


def _cannot_read(role: str, name: str, example: Batch, error: Exception) -> str:
    shape = tuple(example.inputs.shape[1:]) if isinstance(example.inputs, Tensor) else "of several inputs"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{role} {name} cannot read samples of shape {shape} ({reason}); set its mean, std or size"


def _check_trainable(trained: Sequence[nn.Module]) -> None:
    for model in trained:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise RequestError(
                f"{type(model).__name__} has no parameter to train; an ONNX file can only teach, and takes no epochs"
            )


def _check_last_batch(recipe: schema.Recipe, trained: Sequence[nn.Module], samples: int) -> None:
    single = samples % recipe.data.batch_size == 1 and not recipe.data.drop_last
    if single and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for model in trained for m in model.modules()):
        raise RequestError(
            f"{samples} samples in batches of {recipe.data.batch_size} leave a last batch of one, on which batch "
            "norm cannot train; set data.drop_last: true or another data.batch_size"
        )


def _lead_up(job: Job, student: nn.Module, found: Sequence[teachers.Candidate]) -> Lead:
    begun = Lead(found, student, job.recipe)
    scheme = job.recipe.distill.scheme
    return _LEADS[scheme](job, begun) if scheme in _LEADS else begun


def _assistants(job: Job, lead: Lead) -> Lead:
    """Teacher → assistant → … → student: each is taught by the one before (Mirzadeh et al., arXiv:1902.03393)."""
    for number, spec in enumerate(job.recipe.assistants, start=1):
        module = build.model(spec, job.data, derive(job.recipe.seed, "assistant", number))
        recipe = job.recipe.model_copy(update={"student": spec})
        lead = _next_teacher(replace(job, recipe=recipe), f"assistant-{number}", module, lead)
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
    first, rest = _two_stages(job.recipe)
    resolved, scheme, _ = assemble(first, lead.student, lead.found, job.data)
    live = teachers.signal(lead.found, scheme.teacher_taps, logits=scheme.teacher_logits)
    guide, asking = job.ask_once(live, lead.found)
    training = replace(job, recipe=resolved).train(scheme, "hint", guide)
    return replace(lead, recipe=rest, seconds=training["seconds"] + asking)


def _two_stages(recipe: schema.Recipe) -> tuple[schema.Recipe, schema.Recipe]:
    """The recipe of the hint stage, by default half of the epochs, and that of the rest."""
    options = recipe.distill.options
    epochs = options.get("hint_epochs", max(1, recipe.epochs // 2))
    if not isinstance(epochs, int) or not 0 < epochs < recipe.epochs:
        raise RequestError(f"hint_epochs {epochs} leaves nothing of {recipe.epochs} epochs to one of the two stages")
    hint = schema.Distill(method=options.get("hint", "fitnet"), task_weight=0.0)
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
_TAKES = {
    "offline": (),
    "assistant": (),
    "born-again": ("generations",),
    "two-stage": ("hint", "hint_epochs"),
    "teacher-free": ("probability",),
}
"""The options of the schemes that are no class of their own; a class is asked for its signature."""


def _check_options(recipe: schema.Recipe) -> None:
    scheme, options = recipe.distill.scheme, recipe.distill.options
    for option in options:
        if option not in _TAKES.get(scheme, options):
            raise unknown(f"option of scheme {scheme}", option, _TAKES[scheme])
    generations = options.get("generations", 3)
    if not isinstance(generations, int) or generations < 2:
        raise RequestError(f"born-again takes 2 generations or more, not {generations!r}")
