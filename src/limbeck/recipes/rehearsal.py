"""What is found before anything is written or trained: names, options and shapes that do not fit."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from limbeck.data import DataSet, InMemory, make_loader
from limbeck.distillers import Scheme
from limbeck.engine.compiling import check_compile
from limbeck.engine.fit import check
from limbeck.errors import RequestError, as_request, unknown
from limbeck.recipes import build, schema, teachers
from limbeck.recipes.chain import assemble, two_stages
from limbeck.seeds import seeded
from limbeck.taps import call, evaluating
from limbeck.teachers.shards import Shards
from limbeck.types import Batch

_ALL_LOGITS = ("dist", "logit_mse", "mlkd")
"""Losses that cannot do with the likeliest classes alone."""
_TAKES = {
    "offline": (),
    "assistant": (),
    "born-again": ("generations",),
    "two-stage": ("hint", "hint_epochs"),
    "teacher-free": ("probability",),
}
"""The options of the schemes that are no class of their own; a class is asked for its signature."""


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
    for one in found:
        if one.spec.store.where not in schema.PLACES:
            Shards(one.spec.store.where).check_writable()
        build.teacher_views(one.spec, recipe, data)
        with _reading("teacher", one.spec.model, example):
            teachers.signal([one])(example)
        if one.kept:
            _check_last_batch(one.module, one.spec, one.spec.batch_size or recipe.data.batch_size, recipe, data)
    for part in two_stages(recipe) if recipe.distill.scheme == "two-stage" else [recipe]:
        resolved, scheme, live = assemble(part, copy.deepcopy(student), stand_in, data)
        _check_top_k(resolved)
        check_compile(recipe.compile, scheme, recipe.accumulate)
        with _reading("student", recipe.student.model, example):
            scheme.prepare(example, live(example) if live else None)
            _check_labels(scheme, example, data)
    _check_last_batch(student, recipe.student, recipe.data.batch_size, recipe, data)


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


def _check_last_batch(
    model: nn.Module, spec: schema.Model, batch_size: int, recipe: schema.Recipe, data: DataSet
) -> None:
    """Raise RequestError for a network that cannot train on one sample, where a batch has no more."""
    samples = len(data.train)
    last = samples % batch_size or batch_size
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if last != 1 or not normed or (recipe.data.drop_last and batch_size > 1):
        return
    inputs, prepare = next(iter(make_loader(data.train, 1))).inputs, build.inputs(spec)
    try:
        with torch.no_grad(), seeded(0):
            call(copy.deepcopy(model).train(), inputs if prepare is None else prepare(inputs))
    except ValueError as error:
        raise RequestError(
            f"{samples} samples in batches of {batch_size} leave a batch of one, on which batch norm cannot train; set "
            "data.drop_last: true or another batch_size"
        ) from error


def _check_top_k(recipe: schema.Recipe) -> None:
    """Raise RequestError for losses that need the logits that a top-k store leaves out."""
    if not recipe.teachers or recipe.teachers[0].store.top_k is None:
        return
    for term in recipe.distill.terms:
        if term.loss in _ALL_LOGITS or (term.model_extra or {}).get("standardize"):
            raise RequestError(
                f"{term.loss} compares all logits, and store.top_k keeps the likeliest classes alone; leave top_k out, "
                "or distil with kd, reverse_kl, jsd or soft_cross_entropy, not standardised"
            )


def _check_options(recipe: schema.Recipe) -> None:
    scheme, options = recipe.distill.scheme, recipe.distill.options
    for option in options:
        if option not in _TAKES.get(scheme, options):
            raise unknown(f"option of scheme {scheme}", option, _TAKES[scheme])
    generations = options.get("generations", 3)
    if not isinstance(generations, int) or generations < 2:
        raise RequestError(f"born-again takes 2 generations or more, not {generations!r}")
