"""From a recipe's names to objects; the only place that does it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck import losses
from limbeck.data import DataSet, Views, load, make_loader, make_views
from limbeck.data.splits import are_classes
from limbeck.data.text.texts import TEXT
from limbeck.distillers import (
    ClassWise,
    Distiller,
    MeanTeacher,
    MutualDistiller,
    Scheme,
    SelfDistiller,
    Term,
    TokenDistiller,
    ramp,
)
from limbeck.distillers.by_epoch import by_epoch, is_schedule
from limbeck.distillers.scheme import checked_task
from limbeck.distillers.term import Weight
from limbeck.engine import optim
from limbeck.engine.groups import Grouped
from limbeck.engine.progress import tell
from limbeck.engine.schedulers import AnySchedule
from limbeck.engine.settings import EarlyStopping
from limbeck.errors import RequestError, as_request, shown, unknown
from limbeck.imports import load_object
from limbeck.models import NETWORKS, NamedInputs, load_weights, materialise, preprocess, refuse_lazy
from limbeck.models.build import build_from, refuse_new_head
from limbeck.models.finite import check_finite
from limbeck.models.foreign.hugging_face import KIND
from limbeck.models.foreign.hugging_face_files import has_weights
from limbeck.models.foreign.hugging_face_heads import head_of_task
from limbeck.models.foreign.hugging_face_layers import copy_layers
from limbeck.models.memory import TRAINING, check_trainable_size
from limbeck.models.start import freeze, load_without_head
from limbeck.options import fitting, values
from limbeck.recipes import schema
from limbeck.seeds import derive, seeded
from limbeck.taps import call, evaluating
from limbeck.tasks import TASKS, Classification, LanguageModelling, Task
from limbeck.types import Inputs

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
            options(spec, data),
            input_shape=shape(spec, data),
            classes=None if pretrained else data.classes,  # with others, its trained head would be replaced
            copies=1 if spec.weights else TRAINING,
        )
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
    return network


def begin(student: nn.Module, spec: schema.Model, teacher: nn.Module) -> None:
    """Give a student that is cut out of its teacher the weights that the teacher has now that it is trained."""
    if isinstance(spec, schema.Student) and spec.from_teacher is not None:
        copy_layers(teacher, student, spec.from_teacher.layers)


def options(spec: schema.Model, data: DataSet) -> dict[str, Any]:
    """The network's own options, with the size of the data's vocabulary where it asks for one.

    A Hugging Face model ends in what the data's own task needs.
    """
    if spec.model.startswith(f"{KIND}:"):
        head = {} if data.task is None else {"head": head_of_task(data.task.name)}
        cut = spec.from_teacher if isinstance(spec, schema.Student) else None
        return head | spec.options | ({} if cut is None else {"layers": cut.layers})
    builder = NETWORKS.get(spec.model)
    if data.tokenizer is None or builder is None or "vocab" not in inspect.signature(builder).parameters:
        return dict(spec.options)
    return {"vocab": data.tokenizer.size, **spec.options}


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
    return {
        "model": spec.model,
        "options": options(spec, data),
        "classes": data.classes,
        **({"class_names": list(data.class_names)} if data.class_names else {}),
        "input": {
            "shape": list(shape(spec, data)),
            "range": [0, 1] if len(data.input_shape) == 3 or _sample(data)["dtype"] == "uint8" else None,
            "mean": spec.mean,
            "std": spec.std,
            **({} if spec.inputs else {"sample": _sample(data)}),
        },
    }


def _sample(data: DataSet) -> dict[str, Any]:
    """Shape and dtype of one sample as the data set holds it, before a network's own size and scale; of texts the names
    of the inputs that are made of it, and how many ids there are.
    """
    if data.tokenizer is not None:
        names = list(next(iter(make_loader(data.train, 1))).inputs)
        return {"shape": list(data.input_shape), "dtype": TEXT, "inputs": names, "vocab": data.tokenizer.size}
    first = data.train.sample(0)
    dtype = str(first.dtype).removeprefix("torch.") if isinstance(first, Tensor) else "several inputs"
    return {"shape": list(data.input_shape), "dtype": dtype}


def scheme(student: nn.Module, recipe: schema.Recipe, data: DataSet) -> Scheme:
    """The student with the recipe's way of being taught; its method, if it names one, is already written out."""
    distill = recipe.distill
    common: dict[str, Any] = {"inputs": inputs(recipe.student), "task": task(recipe, data)}
    weight: dict[str, Any] = {} if distill.task_weight is None else {"task_weight": distill.task_weight}
    terms = [term(spec) for spec in distill.terms]
    match distill.scheme:
        case "self":
            return _make(SelfDistiller, student, distill.options, **common)
        case "mutual":
            options = dict(distill.options)
            count = whole_number("peers", options.pop("peers", 2), least=2)
            check_trainable_size(f"{count:,} peers", student, count)
            seeds = [derive(recipe.seed, "peer", number) for number in range(1, count)]
            peers = [student, *(model(recipe.student, data, seed) for seed in seeds)]
            return _make(MutualDistiller, peers, options, **common, **weight)
        case "class-wise":
            return _make(ClassWise, student, distill.options, **common, **weight)
        case "mean-teacher":
            return _make(MeanTeacher, student, distill.options, terms=terms, **common, **weight)
        case "offline" if is_chunked(recipe):
            return _make(TokenDistiller, student, _of_chunks(recipe), terms=terms, **common, **weight)
        case _:
            return Distiller(student, terms, **common, **weight)


def is_chunked(recipe: schema.Recipe) -> bool:
    """Whether a language model's logits are to be made a few tokens at a time.

    Raises:
        RequestError: `chunked` is neither true nor false, or there are options of it alone.
    """
    options = recipe.distill.options
    chunked = options.get("chunked", False)
    if not isinstance(chunked, bool):
        raise RequestError(f"chunked is true or false, not {shown(chunked)}; chunk says how many tokens at a time")
    if options and not chunked and recipe.distill.scheme == "offline":
        raise RequestError(f"{', '.join(options)} of the scheme offline go with chunked: true")
    return chunked


def _of_chunks(recipe: schema.Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.distill.options.items() if name != "chunked"}


def alone(student: nn.Module, recipe: schema.Recipe, data: DataSet) -> Scheme:
    """The same student learning from the labels only; one with several exits learns them at each."""
    if recipe.distill.scheme == "self":
        common: dict[str, Any] = {"inputs": inputs(recipe.student), "task": task(recipe, data)}
        return SelfDistiller(student, soft_weight=0.0, hint_weight=0.0, **common)
    if is_chunked(recipe):
        given: dict[str, Any] = {"inputs": inputs(recipe.student), "task": task(recipe, data)}
        return _make(TokenDistiller, student, _of_chunks(recipe), **given)
    return on_labels(student, recipe.student, recipe, data)


def on_labels(network: nn.Module, spec: schema.Model, recipe: schema.Recipe, data: DataSet) -> Distiller:
    """A network, such as a teacher, that learns the recipe's task from labels, or is tested in it."""
    return Distiller(network, inputs=inputs(spec), task=task(recipe, data))


def task(recipe: schema.Recipe, data: DataSet) -> Task:
    """What is learned: as the recipe says, else the data set's own task, else a class a sample.

    Raises:
        RequestError: An unknown task, or an option that it does not take.
    """
    if recipe.task is None:
        return data.task or Classification()
    name, options = recipe.task.name, recipe.task.options
    if isinstance(data.task, LanguageModelling) and name == data.task.name:
        options = {"token_bytes": data.task.token_bytes, **options}
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


def _make(kind: Callable[..., Scheme], student: Any, options: Mapping[str, Any], **given: Any) -> Scheme:
    what = f"scheme {getattr(kind, '__name__', kind)}"
    ours = {"self", "student", "peers", "terms", "teacher", "teacher_head", "inputs", "task", *given}
    with as_request(lambda reason: f"{what}: {reason}"):
        return kind(student, **fitting(what, kind, options, given=ours), **given)


def whole_number(name: str, value: Any, least: int) -> int:
    """An option that counts something.

    Raises:
        RequestError: It is no whole number, or below the least.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RequestError(f"{name} is a whole number of {least} or more, not {shown(value)}")
    return value


def term(spec: schema.Term) -> Term:
    """A term with its loss."""
    what = f"loss {spec.loss}"
    with as_request(lambda reason: f"{what}: {reason}"):
        found = loss(spec.loss)
        scheduled = {name: by_epoch(value) for name, value in spec.options.items() if is_schedule(value)}
        options = {name: value for name, value in spec.options.items() if name not in scheduled}
        return Term(
            found,
            weight=_weight(spec),
            student=_taps(spec.student),
            teacher=_taps(spec.teacher),
            adapter=spec.adapter,
            name=spec.name,
            **values(what, getattr(found, "for_shapes", found), options),
            **scheduled,
        )


def _weight(spec: schema.Term) -> Weight:
    if isinstance(spec.weight, dict):
        if spec.ramp:
            raise RequestError("its weight follows a schedule, and a ramp; leave one out")
        return by_epoch(spec.weight)
    return ramp(spec.ramp, spec.weight, spec.ramp_shape) if spec.ramp else spec.weight


def loss(name: str) -> Any:
    """A loss of limbeck.losses, or one of the user's own as "package.module:name"."""
    if ":" in name:
        return load_object(name, "loss")
    if name not in losses.LOSSES:
        raise unknown("loss", name, [*losses.LOSSES, "package.module:name"])
    return getattr(losses, name)


def optimizer(spec: schema.Optimizer) -> optim.MakeOptimizer | Grouped:
    """A function that makes the optimizer."""
    groups = [(one.match, one.options) for one in spec.groups]
    return optim.optimizer(spec.name, lr=spec.lr, groups=groups, no_decay=spec.no_decay, **spec.options)


def early_stopping(spec: schema.EarlyStopping | None) -> EarlyStopping | None:
    """When a training ends before its last epoch, None for never."""
    return None if spec is None else EarlyStopping(spec.patience, spec.min_delta)


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
    made = optim.schedule(spec.name, epochs, warmup_epochs=spec.warmup_epochs, **spec.options)
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


def _taps(names: schema.Taps) -> str | tuple[str, ...]:
    return names if isinstance(names, str) else tuple(names)
