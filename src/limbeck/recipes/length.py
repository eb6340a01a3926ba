"""A recipe of another length: what is counted in epochs keeps its share of the whole."""

from __future__ import annotations

import math

from limbeck.recipes import schema


def at_length(recipe: schema.Recipe, epochs: int) -> schema.Recipe:
    """The recipe with so many epochs: the milestones and the warm-up of its schedule, ramps and hint_epochs too.

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
    terms = [term.model_copy(update={"ramp": at}) for term, at in zip(recipe.distill.terms, ramps, strict=True)]
    options = dict(recipe.distill.options)
    if isinstance(options.get("hint_epochs"), int):
        options["hint_epochs"] = max(1, round(options["hint_epochs"] * share))
    distill = recipe.distill.model_copy(update={"terms": terms, "options": options})
    changes = {"schedule": schema.Schedule.model_validate(schedule), "distill": distill, "epochs": epochs}
    return recipe.model_copy(update=changes)
