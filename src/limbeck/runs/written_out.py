"""A recipe that names a method, written out: its terms for these networks, and the trainings before the student's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from limbeck.errors import RequestError, shown, unknown
from limbeck.recipes import schema
from limbeck.recipes.length import at_length
from limbeck.recipes.methods import (
    METHODS,
    QUANTISED,
    SCHEME_EPOCHS,
    SCHEMES,
    OfNetwork,
    OfStage,
    OfStudent,
    OfTeacher,
    Places,
    Setting,
    Shipped,
)
from limbeck.recipes.methods.declaration import Terms
from limbeck.runs import learners

Find = Callable[[], Places]
"""Finds where a recipe's networks can be compared."""
HINT = "fitnet:hint"
"""What the first stage of the scheme two-stage trains by, where its recipe does not say."""


@dataclass(frozen=True)
class Part:
    """One of the trainings that a method consists of.

    Attributes:
        phase: What it is called in progress and files.
        recipe: With its terms written out, and the epochs that it has.
    """

    phase: str
    recipe: schema.Recipe


def setting_of(method: str) -> Setting:
    """The setting that "NAME" or "NAME:SETTING" means.

    Raises:
        RequestError: There is no such method, or it has no such setting.
    """
    name, _, chosen = method.partition(":")
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    settings = METHODS[name].settings
    if chosen and chosen not in settings:
        raise unknown(f"setting of method {name}", chosen, settings)
    return settings[chosen] if chosen else METHODS[name].default


def with_terms(recipe: schema.Recipe, find: Find, kept: Mapping[str, nn.Module] | None) -> schema.Recipe:
    """The recipe with the terms of its method written out; unchanged where it gives its terms itself.

    Args:
        recipe: What is to be distilled.
        find: Finds where its networks can be compared.
        kept: The losses with a state that the trainings before have left, by the loss's name; None for plain data, in
            which what a loss takes from the teacher or from those is named in words.

    Raises:
        RequestError: An unknown method, or networks that do not show the places that it compares.
    """
    distill = recipe.distill
    if distill.method is None:
        return recipe
    setting = setting_of(distill.method)
    weight = setting.task_weight if distill.task_weight is None else distill.task_weight
    terms = _terms(distill.method, setting.terms, setting, recipe.epochs, find, kept)
    # Built without the check for at least one term: of some methods the last training is one by the labels alone.
    chosen = distill.model_copy(update={"method": None, "task_weight": weight, "terms": terms})
    return recipe.model_copy(update={"distill": chosen})


def shipped(recipe: schema.Recipe, find: Find) -> Shipped | None:
    """What the recipe's method trains and ships in the student's place; None where that is the student itself.

    Raises:
        RequestError: The networks are not made for it, or the scheme ships the student.
    """
    distill = recipe.distill
    setting = setting_of(distill.method) if distill.method is not None else None
    if distill.method is None or setting is None or setting.network is None:
        return None
    if distill.scheme != "offline":
        raise RequestError(
            f"method {distill.method} ships a network of its own, which the scheme {distill.scheme} does not train; "
            "leave the scheme out, or choose another method"
        )
    with _of_method(distill.method):
        return setting.network(find())


def declared(recipe: schema.Recipe, find: Find) -> tuple[schema.Recipe, list[dict[str, Any]]]:
    """The recipe with its method written out as plain data, and the stages of the method before its own training.

    What comes from a trained teacher, or from a stage before, is named in words.

    Raises:
        RequestError: An unknown method, or networks that do not show the places that it compares.
    """
    method = recipe.distill.method
    written = with_terms(recipe, find, None)
    if method is None:
        return written, []
    setting = setting_of(method)
    stages = [
        {"name": stage.name, "epochs": stage.epochs, "terms": [one.model_dump(mode="json") for one in terms]}
        for stage in setting.stages
        for terms in [_terms(method, stage.terms, setting, recipe.epochs, find, None)]
    ]
    return written, stages


def parts_of(recipe: schema.Recipe, find: Find) -> tuple[list[Part], schema.Recipe]:
    """The trainings that the recipe has before the student's own, and the recipe for the epochs left to that.

    The scheme two-stage has one, with the terms of its `hint`; a method has its stages, each with its share of the
    recipe's epochs, one at least. They are trained at the recipe's learning rate, without its schedule.

    Raises:
        RequestError: The epochs are too few for all of them, or the scheme does not run the method's stages.
    """
    distill = recipe.distill
    if distill.scheme == "two-stage":
        return _two_stages(recipe, find)
    setting = setting_of(distill.method) if distill.method is not None else None
    if distill.method is None or setting is None or not setting.stages:
        return [], recipe
    if distill.scheme != "offline":
        raise RequestError(
            f"method {distill.method} trains in stages of its own, which the scheme {distill.scheme} does not run; "
            "leave the scheme out, or choose another method or setting"
        )
    whole = setting.epochs + sum(stage.epochs for stage in setting.stages)
    shares = [max(1, round(recipe.epochs * stage.epochs / whole)) for stage in setting.stages]
    rest = recipe.epochs - sum(shares)
    if rest < 1:
        raise RequestError(
            f"method {distill.method} trains in {len(shares) + 1} stages; give it as many epochs at least, not "
            f"{recipe.epochs}"
        )
    parts = [
        Part(stage.name, _first(recipe, epochs, _terms(distill.method, stage.terms, setting, recipe.epochs, find, {})))
        for stage, epochs in zip(setting.stages, shares, strict=True)
    ]
    return parts, at_length(recipe, rest)


def _two_stages(recipe: schema.Recipe, find: Find) -> tuple[list[Part], schema.Recipe]:
    """The hint stage, by default half of the epochs, and the rest."""
    options = recipe.distill.options
    epochs = learners.whole_number("hint_epochs", options.get("hint_epochs", max(1, recipe.epochs // 2)), least=1)
    if not epochs < recipe.epochs:
        raise RequestError(
            f"hint_epochs {shown(epochs)} leaves nothing of {recipe.epochs} epochs to one of the two stages"
        )
    hint = options.get("hint", HINT)
    if not isinstance(hint, str):
        raise RequestError(f"hint is the name of a method, such as {HINT}, not {shown(hint)}")
    setting = setting_of(hint)
    terms = (setting.stages[0] if setting.stages else setting).terms
    first = _first(recipe, epochs, _terms(hint, terms, setting, recipe.epochs, find, {}))
    return [Part("hint", first)], at_length(recipe, recipe.epochs - epochs)


def _first(recipe: schema.Recipe, epochs: int, terms: Sequence[schema.Term]) -> schema.Recipe:
    """A training by some terms alone, before the student's own."""
    distill = schema.Distill(task_weight=0.0, terms=list(terms))
    changes = {
        "distill": distill,
        "epochs": epochs,
        "schedule": schema.Schedule(),
        "keep": "last",
        "early_stopping": None,
    }
    return recipe.model_copy(update=changes)


def _terms(
    method: str,
    make: Terms,
    setting: Setting,
    epochs: int,
    find: Find,
    kept: Mapping[str, nn.Module] | None,
) -> list[schema.Term]:
    with _of_method(method):
        places = find()
        terms = [{key: _value(value, places, kept) for key, value in term.items()} for term in make(places)]
        return [_shortened(schema.Term.model_validate(term), epochs, setting.epochs) for term in terms]


@contextmanager
def _of_method(method: str) -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise RequestError(f"method {method}: {error}") from error


def _value(value: Any, places: Places, kept: Mapping[str, nn.Module] | None) -> Any:
    if kept is None and isinstance(value, OfNetwork | OfStage):
        return str(value)
    if kept is None:
        return value
    if isinstance(value, OfTeacher):
        return value.make(places.teacher)
    if isinstance(value, OfStudent):
        return value.make(places.student)
    return kept.get(value.loss) if isinstance(value, OfStage) else value


def _shortened(term: schema.Term, epochs: int, recommended: int) -> schema.Term:
    """The term with its ramp in the same share of a shorter run, so that its weight is reached there too."""
    share = math.ceil(term.ramp * epochs / recommended)
    return term.model_copy(update={"ramp": min(term.ramp, share)})


def by_name(recipe: schema.Recipe, name: str) -> schema.Recipe:
    """The recipe with another method, or another scheme, in the place of its own; or its own way, ending in int8.

    Raises:
        RequestError: There is no such method, or the recipe lacks what it needs.
    """
    check_name(name)
    if name in QUANTISED:
        spec = (recipe.quantize or schema.Quantize()).model_dump()
        return recipe.model_copy(update={"quantize": schema.Quantize.model_validate({**spec, **QUANTISED[name]})})
    if name in SCHEMES and SCHEMES[name]["scheme"] in schema.TAUGHT and recipe.stored is not None:
        raise RequestError(f"method {name} needs a teacher, and of that of the recipe {recipe.name} outputs are stored")
    taught = name not in SCHEMES or SCHEMES[name]["scheme"] in schema.TAUGHT
    if taught and not recipe.teachers and recipe.stored is None:
        raise RequestError(f"method {name} needs a teacher, and the recipe {recipe.name} has none")
    if name == "assistant" and not recipe.assistants:
        raise RequestError(f"method assistant needs the key 'assistants' in the recipe {recipe.name}")
    distill = schema.Distill.model_validate(SCHEMES.get(name, {"method": name}))
    terms = [_shortened(term, recipe.epochs, SCHEME_EPOCHS) for term in distill.terms]
    distill = distill.model_copy(update={"terms": terms})
    return distilled_by(recipe, distill)


def distilled_by(recipe: schema.Recipe, distill: schema.Distill) -> schema.Recipe:
    """The recipe with another way to distil; where the student writes texts itself, its teacher is not stored."""
    changes: dict[str, Any] = {"distill": distill}
    if distill.scheme == "on-policy":
        online = [one.model_copy(update={"store": schema.Store(where="never")}) for one in recipe.teachers]
        changes["teacher"] = online[0] if len(online) == 1 else online
    return recipe.model_copy(update=changes)


def check_name(name: str, *more: str) -> None:
    """Raise RequestError for a name that is no method's, with a setting or without, nor a scheme's or a way to int8.

    Args:
        name: As `limbeck compare --methods` takes it.
        more: Other names that are right there.
    """
    if name in SCHEMES or name in QUANTISED or name in more:
        return
    if name.partition(":")[0] not in METHODS:
        raise unknown("method", name, [*METHODS, *SCHEMES, *QUANTISED, *more])
    setting_of(name)
