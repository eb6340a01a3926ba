"""From a recipe's words to who learns: the student in its scheme, with its terms and their losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from limbeck import losses
from limbeck.data import DataSet
from limbeck.distillers import (
    ClassWise,
    Distiller,
    MeanTeacher,
    MutualDistiller,
    OnPolicyDistiller,
    OnPolicyTokenDistiller,
    Scheme,
    SelfDistiller,
    Term,
    TokenDistiller,
    ramp,
)
from limbeck.distillers.by_epoch import by_epoch, is_schedule
from limbeck.distillers.term import Weight
from limbeck.errors import RequestError, as_request, shown, unknown
from limbeck.imports import load_object
from limbeck.models.memory import check_trainable_size
from limbeck.options import fitting, is_whole, values
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.seeds import derive
from limbeck.types import IGNORED

OF_CHUNKS = ("chunk", "head", "scale", "cap")
"""The options that go with `chunked: true`."""


def scheme(student: nn.Module, recipe: schema.Recipe, data: DataSet) -> Scheme:
    """The student with the recipe's way of being taught; its method, if it names one, is already written out."""
    distill = recipe.distill
    common = _common(recipe, data)
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
            peers = [student, *(components.model(recipe.student, data, seed) for seed in seeds)]
            return _make(MutualDistiller, peers, options, **common, **weight)
        case "class-wise":
            return _make(ClassWise, student, distill.options, **common, **weight)
        case "mean-teacher":
            return _make(MeanTeacher, student, distill.options, terms=terms, **common, **weight)
        case "on-policy":
            kind = OnPolicyTokenDistiller if is_chunked(recipe) else OnPolicyDistiller
            return _make(kind, student, _of_writing(recipe, data), terms=terms, **common, **weight)
        case "offline" if is_chunked(recipe):
            return _make(TokenDistiller, student, _of_chunks(recipe), terms=terms, **common, **weight)
        case _:
            return Distiller(student, terms, **common, **weight)


def _common(recipe: schema.Recipe, data: DataSet) -> dict[str, Any]:
    """What every scheme of the student is given."""
    return {"inputs": components.inputs(recipe.student), "task": components.task(recipe, data)}


def is_chunked(recipe: schema.Recipe) -> bool:
    """Whether a language model's logits are to be made a few tokens at a time.

    Raises:
        RequestError: `chunked` is neither true nor false, or there are options of it alone.
    """
    options = recipe.distill.options
    chunked = options.get("chunked", False)
    if not isinstance(chunked, bool):
        raise RequestError(f"chunked is true or false, not {shown(chunked)}; chunk says how many tokens at a time")
    named = [name for name in OF_CHUNKS if name in options]
    if named and not chunked:
        raise RequestError(f"{', '.join(named)} of the scheme {recipe.distill.scheme} go with chunked: true")
    return chunked


def _of_writing(recipe: schema.Recipe, data: DataSet) -> dict[str, Any]:
    """The options of the scheme on-policy, with what the data say of prompts and ends."""
    options = {name: value for name, value in recipe.distill.options.items() if name != "chunked"}
    if is_schedule(options.get("share")):
        options["share"] = by_epoch(options["share"])
    found: dict[str, Any] = {"seed": recipe.seed}
    if data.tokenizer is not None:
        found |= {"end": data.tokenizer.end, "pad": data.tokenizer.pad}
    targets = data.train.targets
    # Where most samples begin with a target they are plain text, and no conversations.
    if isinstance(targets, Tensor) and targets.dim() == 2 and (targets[:, 0] != IGNORED).float().mean() > 0.5:
        found["prompt"] = max(1, targets.shape[1] // 2)
    return found | options


def _of_chunks(recipe: schema.Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.distill.options.items() if name in OF_CHUNKS}


def alone(student: nn.Module, recipe: schema.Recipe, data: DataSet) -> Scheme:
    """The same student learning from the labels only; one with several exits learns them at each."""
    if recipe.distill.scheme == "self":
        return SelfDistiller(student, soft_weight=0.0, hint_weight=0.0, **_common(recipe, data))
    if is_chunked(recipe):
        return _make(TokenDistiller, student, _of_chunks(recipe), **_common(recipe, data))
    return on_labels(student, recipe.student, recipe, data)


def on_labels(network: nn.Module, spec: schema.Model, recipe: schema.Recipe, data: DataSet) -> Distiller:
    """A network, such as a teacher, that learns the recipe's task from labels, or is tested in it."""
    return Distiller(network, inputs=components.inputs(spec), task=components.task(recipe, data, spec))


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
    if not is_whole(value, least):
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


def _taps(names: schema.Taps) -> str | tuple[str, ...]:
    return names if isinstance(names, str) else tuple(names)
