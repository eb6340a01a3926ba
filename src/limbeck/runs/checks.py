"""What is found before anything is written or trained: names, options and shapes that do not fit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory, make_loader
from limbeck.data.text.texts import Texts
from limbeck.distillers import Distiller, Scheme
from limbeck.distillers.term import ENDS
from limbeck.engine.callbacks.hooks import check_callbacks
from limbeck.engine.devices.compiling import check_compile
from limbeck.engine.first.batch import Trial, settle, sized
from limbeck.engine.settings import Saving, Settings
from limbeck.errors import RequestError, as_request, unknown
from limbeck.models.foreign.hugging_face_lora import has_adapters
from limbeck.models.layout import CHANNELS_LAST
from limbeck.models.memory import check_trainable_size
from limbeck.recipes import schema
from limbeck.runs import components, learners, quantized, teachers
from limbeck.runs.stages import schemes
from limbeck.runs.texts import check_reads
from limbeck.seeds import seeded
from limbeck.taps import call, evaluating
from limbeck.tasks import Task
from limbeck.teachers import StoredTeacher, Teacher
from limbeck.teachers.shards import Shards
from limbeck.types import Batch, TeacherOutput, tensors_of

_ALL_LOGITS = ("CTKD", "dist", "logit_mse", "mlkd", "normkd", "probability_mse", "wttm")
"""Losses that cannot do with the likeliest classes alone."""
_OF_DRAWS = ("kd", "soft_cross_entropy")
"""Losses whose gradient is right in expectation by what was drawn."""
_TAKES = {
    "offline": ("chunked", *learners.OF_CHUNKS),
    "assistant": (),
    "born-again": ("generations",),
    "on-policy": ("share", "prompt", "new_tokens", "temperature", "end", "pad", "chunked", *learners.OF_CHUNKS),
    "two-stage": ("hint", "hint_epochs"),
    "teacher-free": ("probability", "softens"),
}
"""The options of the schemes that are no class of their own; a class is asked for its signature."""


def dry_run(recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet) -> None:
    """Find what does not fit before anything is written or trained.

    Raises:
        RequestError: A name, an option or a shape that does not fit.
    """
    _check_options(recipe)
    validates, saving = data.validation is not None, Saving(save_every=recipe.save_every)
    steps = recipe.validate_steps
    settings = Settings(recipe.epochs, recipe.accumulate_steps, recipe.max_grad_norm, recipe.keep, steps, saving=saving)
    settings.check(validates=validates)
    check_callbacks(components.early_stopping(recipe.early_stopping), validates=validates)
    _check_views(recipe, data)
    components.sampling(recipe.data, data)
    components.optimizer(recipe.optimizer)
    components.schedule(recipe.schedule, recipe.epochs)
    views = components.views(recipe.data, data)
    if recipe.distill.options.get("other_view"):
        views.other()
    with as_request(lambda reason: f"the first batch of {data.name} cannot be read: {reason}"):
        next(iter(make_loader(data.train, recipe.data.batch_size, drop_last=recipe.data.drop_last, views=views)))
    example = next(iter(make_loader(data.train, 2 * data.train.together)))
    networks = [("student", recipe.student, student), *((one.name, one.spec, one.module) for one in found)]
    for role, spec, network in networks:
        check_reads(role, spec, network, components.inputs(spec), data)
    _check_trainable([student, *(one.module for one in found if one.kept)])
    _check_sizes(recipe, student, found)
    for one in found:
        if one.spec.store.where not in schema.PLACES:
            Shards(one.spec.store.where).check_writable()
        components.teacher_views(one.spec, recipe, data)
        with _reading("teacher", one.spec.model, example):
            output = teachers.as_one([one])(example).output
        if output is not None:
            task = components.task(recipe, data)
            task.check_teacher(task.output(output), example.targets, learned=False)
        if one.kept:
            _check_step(one, example, components.task(recipe, data, one.spec))
            _check_batches(one.module, one.spec, one.spec.batch_size or recipe.data.batch_size, data)
    _check_schemes(recipe, student, found, data)
    for spec in recipe.assistants if recipe.distill.scheme == "assistant" else ():
        assistant = components.model(spec, data, recipe.seed)
        check_trainable_size("an assistant", assistant)
        _check_schemes(recipe.model_copy(update={"student": spec}), assistant, found, data)
        _check_batches(assistant, spec, recipe.data.batch_size, data)
    _check_batches(student, recipe.student, recipe.data.batch_size, data)
    quantized.check(recipe, student, data)


def check_shares(recipe: schema.Recipe, found: Sequence[teachers.Candidate], processes: int) -> None:
    """Raise RequestError for batches that so many processes cannot share."""
    for size in (recipe.data.batch_size, *(one.spec.batch_size for one in found if one.kept)):
        if size is not None and size % processes:
            raise RequestError(f"batch_size {size} does not divide by {processes} processes")


def _check_schemes(
    recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet
) -> None:
    """Put each stage of a student's training together, and compute its loss once."""
    example = next(iter(make_loader(data.train, 2 * data.train.together, pairs=True)))
    # On a GPU every layout is right; the checks run on the CPU.
    layout = CHANNELS_LAST if recipe.layout == CHANNELS_LAST and not torch.cuda.is_available() else None
    with as_request(lambda reason: f"the scheme {recipe.distill.scheme} cannot be made: {reason}"):
        stages = list(schemes(recipe, student, found, data))
    if len(stages) > 1 and has_adapters(student):
        raise RequestError("lora is for a single training, and this method has one before it; leave student.lora out")
    for resolved, scheme, online in stages:
        _check_top_k(resolved, online)
        check_compile(recipe.compile, scheme, recipe.accumulate_steps)
        with _reading("student", recipe.student.model, example):
            settle(scheme, example, recipe.seed)
            teacher_output = online(example) if online else None
            laid = sized(scheme, example, teacher_output, layout)
            _check_labels(scheme, example, data)
            if not scheme.generates:
                _check_lengths(resolved, example, teacher_output, data)
        _check_loss(scheme, example, teacher_output)
        with laid.kept():
            Trial(scheme, example.changed(laid.inputs), teacher_output, nullcontext).check()


def _check_step(teacher: teachers.Candidate, example: Batch, task: Task) -> None:
    """Raise RequestError for a teacher to be trained that cannot make a training step."""
    scheme = Distiller(teacher.module, inputs=components.inputs(teacher.spec), task=task)
    try:
        with as_request(str):
            settle(scheme, example, teacher.spec.seed)
            scheme.prepare(example, None)
            Trial(scheme, example, None, nullcontext).check()
    except RequestError as error:
        reason = str(error).replace("the student's", "its").replace("the student", "it")
        raise RequestError(f"the {teacher.name} {teacher.spec.model} cannot be trained: {reason}") from error


@torch.no_grad()
def _check_loss(scheme: Scheme, example: Batch, teacher_output: TeacherOutput | None) -> None:
    """Raise RequestError for a loss that is not finite before any training."""
    found = []
    with evaluating(scheme):
        for epoch in (ENDS[1], 0):  # of what follows a schedule, the last value counts too
            scheme.at(epoch)
            found.append(scheme(example, teacher_output))
    odd = {name for step in found for name, part in step.parts.items() if not torch.isfinite(part).all()}
    if odd or not all(torch.isfinite(step.loss).all() for step in found):
        raise RequestError(
            f"{', '.join(sorted(odd)) or 'the loss'} is not finite on the first samples, before any training; check "
            "the loss's options and weights, and the samples"
        )


@torch.no_grad()
def _check_labels(scheme: Scheme, example: Batch, data: DataSet) -> None:
    """Raise RequestError for a label, of any split, for which the student has no output."""
    with evaluating(scheme):
        outputs = scheme.predict(example.inputs).shape[1]
    if not scheme.task.classifies_samples:
        return
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        highest = -1 if split is None else int(split.targets.max())
        if highest >= outputs:
            raise RequestError(
                f"the {name} data of {data.name} has the label {highest}, and the student {outputs} outputs, for "
                "labels from 0 on; fix the labels, or build the student with more outputs"
            )


def _check_lengths(recipe: schema.Recipe, example: Batch, teacher_output: TeacherOutput | None, data: DataSet) -> None:
    """Raise RequestError for teacher outputs by token that are to be stored of batches of several lengths."""
    split = data.train
    if not isinstance(split, Texts) or split.padding != "batch" or teacher_output is None or not recipe.teachers:
        return
    length = tensors_of(example.inputs)[0].shape[1]
    tensors = [one for one in (teacher_output.output, *teacher_output.features.values()) if one is not None]
    if recipe.teachers[0].store.where != "never" and any(one.shape[1] == length for one in tensors if one.dim() > 2):
        raise RequestError(
            "teacher outputs that hold a value for each token are stored for texts of one length: set "
            "data.options.padding to length, or teacher.store to never"
        )


def _check_views(recipe: schema.Recipe, data: DataSet) -> None:
    split = data.train
    if recipe.data.views and not recipe.data.augment and (isinstance(split, InMemory) or not split.random):
        raise RequestError(
            "data.views counts augmented versions, and there is no data.augment; leave one out or add one"
        )
    pixels = split.inputs if isinstance(split, InMemory) else None
    if recipe.data.augment and isinstance(pixels, Tensor) and pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise RequestError(
                f"augmentation takes pixels of uint8, or floats of 0–1, and these run from {low:.3g} to {high:.3g}; "
                "normalise by the model's mean and std instead"
            )


def _reading(role: str, name: str, example: Batch) -> AbstractContextManager[None]:
    shape = tuple(example.inputs.shape[1:]) if isinstance(example.inputs, Tensor) else "of several inputs"
    return as_request(
        lambda reason: f"{role} {name} cannot read samples of shape {shape} ({reason}); set its mean, std or size"
    )


def _check_trainable(trained: Sequence[nn.Module]) -> None:
    for model in trained:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise RequestError(
                f"{type(model).__name__} has no parameter to train; an ONNX file can only teach, and takes no epochs"
            )


def _check_sizes(recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate]) -> None:
    """Raise RequestError for networks that the machine has no memory to train."""
    generations = recipe.distill.options.get("generations", 3) if recipe.distill.scheme == "born-again" else 1
    check_trainable_size("the student", student, generations)
    for one in found:
        if one.kept:
            check_trainable_size(f"the {one.name}", one.module)


def _check_batches(model: nn.Module, spec: schema.Model, batch_size: int, data: DataSet) -> None:
    """Raise RequestError for a network that cannot train on one sample, where no batch has more."""
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if batch_size > 1 or not normed:
        return
    inputs, prepare = next(iter(make_loader(data.train, 1))).inputs, components.inputs(spec)
    try:
        with torch.no_grad(), seeded(0):
            call(copy.deepcopy(model).train(), inputs if prepare is None else prepare(inputs))
    except ValueError as error:
        raise RequestError(
            "batches hold one sample each, on which batch norm cannot train; set another batch_size"
        ) from error


def _check_top_k(recipe: schema.Recipe, online: Teacher | None) -> None:
    """Raise RequestError for losses that need more of the logits than a top-k store, or a sampled one, holds."""
    store = recipe.teachers[0].store if recipe.teachers else schema.Store()
    if isinstance(online, StoredTeacher):
        store = schema.Store(top_k=online.coding.top_k, draws=online.coding.draws)
    for term in recipe.distill.terms if store.top_k or store.draws else ():
        options = term.model_extra or {}
        if term.teacher != "logits" and "logits" not in term.teacher:
            continue
        if store.top_k and (term.loss in _ALL_LOGITS or options.get("standardize")):
            raise RequestError(
                f"{term.loss} compares all logits, and store.top_k keeps the likeliest classes alone; leave top_k out, "
                "or distil with kd, reverse_kl, jsd or soft_cross_entropy, not standardised"
            )
        if store.draws and (term.loss not in _OF_DRAWS or options.get("temperature", 4.0) != 1):
            raise RequestError(
                f"store.draws keeps some classes, which are right in expectation for {' and '.join(_OF_DRAWS)} at "
                f"temperature: 1 alone, and not for {term.loss} as it stands; change the term, or store top_k"
            )


def _check_options(recipe: schema.Recipe) -> None:
    scheme, options = recipe.distill.scheme, recipe.distill.options
    if scheme == "on-policy" and any(one.store.where not in ("auto", "never") for one in recipe.teachers):
        raise RequestError(
            "the scheme on-policy asks its teacher about texts that the student writes, which no store knows; set "
            "teacher.store to never"
        )
    for option in options:
        if option not in _TAKES.get(scheme, options):
            raise unknown(f"option of scheme {scheme}", option, _TAKES[scheme])
    learners.whole_number("generations", options.get("generations", 3), least=2)
