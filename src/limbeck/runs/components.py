"""From a recipe's names to objects: data, networks, tasks, optimizers; `learners` has what learns."""

from __future__ import annotations

import inspect
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data import DataSet, Views, load, make_loader, make_views
from limbeck.data.splits import SEVERAL, are_classes
from limbeck.data.text.beside import give_tokenizer
from limbeck.data.text.texts import TEXT
from limbeck.data.text.tokenizers import FastTokenizer
from limbeck.distillers.scheme import checked_task
from limbeck.engine.callbacks.early_stopping import EarlyStopping
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.optimizers import named
from limbeck.engine.optimizers.groups import Grouped
from limbeck.engine.optimizers.schedulers import AnySchedule
from limbeck.errors import RequestError, as_request, unknown
from limbeck.imports import load_object
from limbeck.models import NETWORKS, NamedInputs, load_weights, materialise, preprocess, refuse_lazy
from limbeck.models.build import build_from, refuse_new_head
from limbeck.models.finite import check_finite
from limbeck.models.foreign.hugging_face import KIND
from limbeck.models.foreign.hugging_face_files import has_weights
from limbeck.models.foreign.hugging_face_heads import head_of_task
from limbeck.models.foreign.hugging_face_layers import copy_cut
from limbeck.models.memory import TRAINING
from limbeck.models.recomputed import recompute_blocks
from limbeck.models.start import freeze, load_without_head
from limbeck.options import fitting, values
from limbeck.recipes import schema
from limbeck.recipes.schema.own_tokens import OWN
from limbeck.seeds import derive, seeded
from limbeck.taps import Choice, call, evaluating
from limbeck.tasks import TASKS, Classification, Embedding, LanguageModelling, Task
from limbeck.teachers.chosen import chosen_by
from limbeck.types import TEACHER, Inputs

HELD_OUT, HELD_OUT_VALUES = 1000, 2**24
"""Samples that are tested at once at most, and numbers that they have in all unless a training step has more."""


def data(spec: schema.Data, root: Path) -> DataSet:
    """The data set, with its validation split."""
    loaded = load(spec.name, root, size=spec.size, options=spec.options)
    if loaded.note:
        tell(loaded.note)
    found = loaded.with_validation(spec.validation) if spec.validation else loaded
    if spec.limit_samples is not None:
        found = found.limited(spec.limit_samples)
    return found if spec.limit_steps is None else found.with_training(spec.limit_steps * spec.batch_size)


def sampling(spec: schema.Data, data: DataSet) -> torch.Tensor | None:
    """(N,) weights by which training samples are drawn; None for each once an epoch.

    Raises:
        RequestError: An unknown name, a balance without a class a sample, or a function that gives no weights.
    """
    targets = data.train.targets
    if spec.sampling == "uniform":
        return None
    if spec.sampling == "balanced":
        if not are_classes(targets):
            raise RequestError("data.sampling: balanced needs a class a sample; give package.module:function")
        counts = torch.bincount(targets.clamp(min=0), minlength=data.classes).clamp(min=1)
        return (1 / counts.double())[targets.clamp(min=0)] * (targets >= 0)
    if ":" not in spec.sampling:
        raise unknown("data.sampling", spec.sampling, ["uniform", "balanced", "package.module:function"])
    with as_request(lambda reason: f"data.sampling {spec.sampling}: {reason}"):
        return torch.as_tensor(load_object(spec.sampling, "sampling")(targets), dtype=torch.float64)


def views(spec: schema.Data, data: DataSet) -> Views:
    """How the students see the training samples."""
    return make_views(spec.augment, count=spec.views, seed=spec.view_seed, classes=data.classes)


def teacher_views(spec: schema.Teacher, recipe: schema.Recipe, data: DataSet) -> Views:
    """How a teacher sees them in its own training: a new view each epoch."""
    steps = recipe.data.augment if spec.augment is None else spec.augment
    return make_views(steps, seed=derive(spec.seed, "teacher"), classes=data.classes)


def model(spec: schema.Model, data: DataSet, seed: int) -> nn.Module:
    """A network for the data: its start a function of the seed alone, or the weights that it names."""
    given = isinstance(spec, schema.Teacher) and not (spec.epochs or spec.weights)
    pretrained = given and bool(spec.options.get("pretrained"))
    with seeded(derive(seed, "start")):
        network = build_from(
            spec.model,
            options(spec, data) | _kept_tokens(spec, data),
            input_shape=shape(spec, data),
            classes=None if pretrained else data.classes,  # with others, its trained head would be replaced
            copies=1 if spec.weights else TRAINING,
        )
    if data.tokenizer is not None and spec.inputs in (None, OWN):
        give_tokenizer(network, data.tokenizer)
    if given:
        refuse_lazy(network)
    if pretrained:
        refuse_new_head(spec.model, network)
    with evaluating(network):
        materialise(network, lambda: call(network, example(spec, data)), seed)
    if spec.weights:
        (load_without_head if spec.new_head else load_weights)(network, spec.weights)
        check_finite(network, spec.weights)
    freeze(network, spec.freeze)
    if isinstance(spec, schema.Student) and spec.gradient_checkpointing:
        recompute_blocks(network)
    return network


def begin(student: nn.Module, spec: schema.Model, teacher: nn.Module) -> None:
    """Give a student that is cut out of its teacher the weights that the teacher has now that it is trained."""
    if isinstance(spec, schema.Student) and spec.from_teacher is not None:
        copy_cut(teacher, student)


def options(spec: schema.Model, data: DataSet) -> dict[str, Any]:
    """The network's own options, with the size of the data's vocabulary where it asks for one.

    A Hugging Face model ends in what the data's own task needs.
    """
    if spec.model.startswith(f"{KIND}:"):
        head = {} if data.task is None else {"head": head_of_task(data.task.name)}
        cut = spec.from_teacher if isinstance(spec, schema.Student) else None
        return head | spec.options | ({} if cut is None else cut.model_dump(exclude_none=True, exclude={"vocabulary"}))
    builder = NETWORKS.get(spec.model)
    if data.tokenizer is None or builder is None or "vocab" not in inspect.signature(builder).parameters:
        return dict(spec.options)
    return {"vocab": data.tokenizer.size, **spec.options}


def _kept_tokens(spec: schema.Model, data: DataSet) -> dict[str, Any]:
    """Which tokens a student keeps that is cut out of its teacher, as an option of its builder."""
    cut = spec.from_teacher if isinstance(spec, schema.Student) else None
    if cut is None or cut.vocabulary is None:
        return {}
    assert isinstance(data.tokenizer, FastTokenizer)
    return {"tokens": data.tokenizer.kept}


def inputs(spec: schema.Model) -> nn.Module | None:
    """What prepares the network's input."""
    prepare = preprocess(spec.mean, spec.std, spec.size)
    if spec.inputs is None:
        return prepare
    named = NamedInputs(spec.inputs)
    return named if prepare is None else nn.Sequential(named, prepare)


def example(spec: schema.Model, data: DataSet) -> Inputs:
    """One sample as the network reads it."""
    sample = next(iter(make_loader(data.train, 1))).inputs
    prepare = inputs(spec)
    return prepare(sample) if prepare else sample


def about(spec: schema.Model, data: DataSet) -> dict[str, Any]:
    """What one must know to load the network's weights."""
    several = data.tokenizer is None and spec.inputs is not None and len(spec.inputs) > 1
    return {
        "model": spec.model,
        "options": options(spec, data),
        **({} if spec.output is None else {"output": spec.output}),
        "classes": data.classes,
        **({"class_names": list(data.class_names)} if data.class_names else {}),
        "input": {
            "shape": list(shape(spec, data)),
            "range": [0, 1] if len(data.input_shape) == 3 or _sample(data)["dtype"] == "uint8" else None,
            "mean": spec.mean,
            "std": spec.std,
            **({"sample": _sample(data)} if spec.inputs in (None, OWN) or several else {}),
        },
    }


def _sample(data: DataSet) -> dict[str, Any]:
    """Shape and dtype of one sample as the data set holds it, before a network's own size and scale; of texts the names
    of the inputs that are made of it, and how many ids there are.
    """
    if data.tokenizer is not None:
        names = [name for name in next(iter(make_loader(data.train, 1))).inputs if name != TEACHER]
        return {"shape": list(data.input_shape), "dtype": TEXT, "inputs": names, "vocab": data.tokenizer.size}
    dtype = str(getattr(data.train.sample(0), "dtype", SEVERAL)).removeprefix("torch.")
    return {"shape": list(data.input_shape), "dtype": dtype}


def output(spec: schema.Model, recipe: schema.Recipe, data: DataSet) -> Choice:
    """Which part of what a network that teaches returns is its output: as it says, else as its student's task does."""
    return chosen_by(task(recipe, data, spec)) if spec.output is None else spec.output


def task(recipe: schema.Recipe, data: DataSet, of: schema.Model | None = None) -> Task:
    """What is learned, from the student's output or that `of` another network: as the recipe says, else the data set's
    own task, else a class a sample.

    Raises:
        RequestError: An unknown task, or an option that it does not take.
    """
    found, chosen = _task(recipe, data), (of or recipe.student).output
    return found if chosen is None else found.reading(chosen)


def _task(recipe: schema.Recipe, data: DataSet) -> Task:
    if recipe.task is None:
        return data.task or Classification()
    name, options = recipe.task.name, recipe.task.options
    if isinstance(data.task, LanguageModelling) and name == data.task.name:
        options = {"token_bytes": data.task.token_bytes, **options}
    if isinstance(data.task, Embedding) and name == data.task.name:
        options = {"texts": data.task.texts, **options}
    if ":" in name:
        kind = load_object(name, "task")
        if isinstance(kind, Task):
            return kind
    else:
        if name not in TASKS:
            raise unknown("task", name, [*TASKS, "package.module:Class"])
        kind = TASKS[name]
    if isinstance(options.get("loss"), str):
        options = {**options, "loss": load_object(options["loss"], "task loss")}
    with as_request(lambda reason: f"task {name}: {reason}"):
        made = kind(**values(f"task {name}", kind, options))
    return checked_task(made)


def optimizer(spec: schema.Optimizer) -> named.MakeOptimizer | Grouped:
    """A function that makes the optimizer."""
    groups = [(one.match, one.options) for one in spec.groups]
    return named.optimizer(spec.name, lr=spec.lr, groups=groups, no_decay=spec.no_decay, **spec.options)


def early_stopping(spec: schema.EarlyStopping | None) -> list[EarlyStopping]:
    """When a training ends before its last epoch, None for never."""
    return [] if spec is None else [EarlyStopping(spec.patience, spec.min_delta)]


def schedule(spec: schema.Schedule, epochs: int) -> AnySchedule | None:
    """The schedule over a run of `epochs`, None for the constant one; of one's own, a function of the optimizer."""
    if ":" in spec.name:
        if spec.warmup_epochs:
            raise RequestError(
                f"schedule {spec.name} takes no warmup_epochs; leave it out, or warm up in the scheduler"
            )
        maker = load_object(spec.name, "schedule")
        own: AnySchedule = partial(maker, **fitting(f"schedule {spec.name}", maker, spec.options, given={"optimizer"}))
        return own
    made = named.schedule(spec.name, epochs, warmup_epochs=spec.warmup_epochs, **spec.options)
    return None if spec.name == "constant" and not spec.warmup_epochs else made


def dtype(spec: schema.Teacher) -> torch.dtype | None:
    """The dtype in which a teacher computes, None for fp32; "auto" is decided before, where it can gain."""
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(spec.dtype)


def check_is_trained(spec: schema.Teacher) -> None:
    """Raise RequestError for a teacher that nobody would have trained."""
    if spec.new_head:
        raise RequestError(f"teacher {spec.model} with new_head would teach by an untrained head; leave new_head out")
    if not (spec.epochs or comes_trained(spec)):
        raise RequestError(
            f"teacher {spec.model} would be untrained: give teacher.epochs, teacher.weights or pretrained: true"
        )


def comes_trained(spec: schema.Teacher) -> bool:
    """Whether a teacher has trained weights before any training: its own file's, given ones, or its builder's."""
    kind, _, name = spec.model.partition(":")
    if kind == KIND:
        built = has_weights(name) and not spec.options.get("replace_head")
    else:
        built = bool(name) and kind not in ("torchvision", "timm")
    return bool(spec.weights or spec.options.get("pretrained") or built)


def shape(spec: schema.Model, data: DataSet) -> tuple[int, ...]:
    """One sample's shape as the network gets it."""
    if len(data.input_shape) != 3:
        return data.input_shape
    channels, height, width = data.input_shape
    per_channel = spec.mean or spec.std
    size = (spec.size, spec.size) if spec.size else (height, width)
    return (len(per_channel) if per_channel else channels, *size)


def held_out_batch(recipe: schema.Recipe, data: DataSet) -> int:
    """Samples that are tested at once: many, but of large images or outputs no more than a training step has."""
    outputs = data.classes if isinstance(task(recipe, data), LanguageModelling) else 1
    values = outputs * max(math.prod(shape(spec, data)) for spec in (recipe.student, *recipe.teachers))
    return min(HELD_OUT, max(HELD_OUT_VALUES // values, recipe.data.batch_size))
