"""A recipe of another length: what is counted in epochs keeps its share of the whole."""

from __future__ import annotations

import math
from typing import Any

from limbeck.recipes import schema


def at_length(recipe: schema.Recipe, epochs: int) -> schema.Recipe:
    """The recipe with so many epochs: the milestones and the warm-up of its schedule, ramps,
    schedules of terms, hint_epochs and quantize.epochs too.

    Args:
        recipe: What is to be done; its teachers keep the epochs that they have.
        epochs: 1 or more.

    Raises:
        ValidationError: That is no number of epochs.
    """
    share = epochs / recipe.epochs
    schedule = recipe.schedule.model_dump() | {"warmup_epochs": recipe.schedule.warmup_epochs * share}
    if isinstance(schedule.get("milestones"), list):
        schedule["milestones"] = [at * share if isinstance(at, int | float) else at for at in schedule["milestones"]]
    ramps = [math.ceil(term.ramp * epochs / recipe.epochs) for term in recipe.distill.terms]
    terms = [
        stretched(term, share).model_copy(update={"ramp": at})
        for term, at in zip(recipe.distill.terms, ramps, strict=True)
    ]
    options = dict(recipe.distill.options)
    if isinstance(options.get("hint_epochs"), int):
        options["hint_epochs"] = max(1, round(options["hint_epochs"] * share))
    from limbeck.distillers.by_epoch import is_schedule  # and torch, which reading a recipe does not need

    options |= {name: _stretched(value, share) for name, value in options.items() if is_schedule(value)}
    distill = recipe.distill.model_copy(update={"terms": terms, "options": options})
    changes = {"schedule": schema.Schedule.model_validate(schedule), "distill": distill, "epochs": epochs}
    if recipe.quantize is not None and recipe.quantize.epochs:
        in_int8 = max(1, round(recipe.quantize.epochs * share))
        changes["quantize"] = recipe.quantize.model_copy(update={"epochs": in_int8})
    return recipe.model_copy(update=changes)


def stretched(term: schema.Term, share: float) -> schema.Term:
    """The term with the schedules of its weight and its options over a run that is `share` times as long."""
    from limbeck.distillers.by_epoch import is_schedule  # and torch, which reading a recipe does not need

    options = {name: _stretched(value, share) for name, value in term.options.items() if is_schedule(value)}
    weight = _stretched(term.weight, share) if isinstance(term.weight, dict) else term.weight
    return term.model_copy(update={"weight": weight, **options})


def _stretched(schedule: dict[str, Any], share: float) -> dict[str, Any]:
    scaled = dict(schedule)
    if isinstance(scaled.get("epochs"), int):
        scaled["epochs"] = max(1, round(scaled["epochs"] * share))
    if isinstance(scaled.get("milestones"), list):
        scaled["milestones"] = [at * share if isinstance(at, int | float) else at for at in scaled["milestones"]]
    return scaled
