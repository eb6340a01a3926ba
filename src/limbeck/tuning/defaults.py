"""The default space of a recipe: what people search by hand, around the recipe's own values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from limbeck.distillers.by_epoch import is_schedule
from limbeck.recipes import schema
from limbeck.tuning.settings import MISSING, own_value
from limbeck.tuning.space import Choices, Range, Space

DECADE = 10.0
"""Learning rates and weights are searched so many times below and above the recipe's own."""
DECAYS = (0.0, 1e-5, 1e-4, 5e-4, 1e-3, 1e-2)
WARM = 0.1
"""Share of the epochs that a warm-up takes."""
OPTIONS = {"temperature": Range(1.0, 8.0, log=True), "nontarget_weight": Range(0.5, 16.0, log=True)}
"""Options of losses that are tuned by hand, wherever a loss has them."""
SCHEME_OPTIONS = ("soft_weight", "hint_weight", "temperature")
"""Likewise of schemes that have a loss of their own."""


def default_space(recipe: schema.Recipe, taught: bool) -> Space:
    """The space of one contender.

    Args:
        recipe: How it is trained, the terms of its method written out where they are plain data.
        taught: Whether its way to distil has a say; the baseline learns from labels.
    """
    content = recipe.model_dump(mode="json")
    space: Space = {"optimizer.lr": _around(recipe.optimizer.lr)}
    decay = own_value(recipe, content, "optimizer.weight_decay")
    if decay is not MISSING:
        space["optimizer.weight_decay"] = Choices(_with(DECAYS, decay))
    space["schedule"] = _schedules(recipe, content)
    if recipe.data.augment and recipe.data.views is None:  # so many views of nothing would be none
        space["data.augment"] = Choices(([*recipe.data.augment], []))
    return {**space, **dict(_of_distilling(recipe, content))} if taught else space


def _of_distilling(recipe: schema.Recipe, content: dict[str, Any]) -> Iterator[tuple[str, Range | Choices]]:
    distill = recipe.distill
    if distill.task_weight is not None or distill.scheme in schema.WITH_TERMS:
        yield "distill.task_weight", Range(0.0, max(1.0, distill.task_weight or 0.0))
    for place in _places(distill.terms):
        weight = own_value(recipe, content, f"{place}.weight")
        if isinstance(weight, int | float) and weight > 0:
            yield f"{place}.weight", _around(weight)
        for name, domain in OPTIONS.items():
            value = own_value(recipe, content, f"{place}.{name}")
            if value is not MISSING and not is_schedule(value) and value > 0:
                yield f"{place}.{name}", Range(min(domain.low, value), max(domain.high, value), domain.log)
    for name in SCHEME_OPTIONS if distill.scheme not in schema.WITH_TERMS else ():
        value = distill.options.get(name)
        if isinstance(value, int | float) and value > 0:
            yield f"distill.options.{name}", _around(value)


def _places(terms: list[schema.Term]) -> list[str]:
    """Where the terms stand; terms of one loss and weight, such as one a stage, are searched as one."""
    alike = len({(term.loss, str(term.weight), str(sorted(term.options.items()))) for term in terms}) == 1
    together = alike and len(terms) > 1
    return ["distill.terms.*"] if together else [f"distill.terms.{number}" for number in range(len(terms))]


def _schedules(recipe: schema.Recipe, content: dict[str, Any]) -> Choices:
    own = content["schedule"]
    plain = {"name": "constant", "warmup_epochs": 0.0}
    cosine = {"name": "cosine", "warmup_epochs": 0.0}
    warm = {"name": "cosine", "warmup_epochs": round(WARM * recipe.epochs, 3)}
    found = [own, plain, cosine, warm]
    return Choices(tuple(one for place, one in enumerate(found) if one not in found[:place]))


def _around(value: float) -> Range:
    return Range(float(f"{value / DECADE:.3g}"), float(f"{value * DECADE:.3g}"), log=True)


def _with(values: tuple[float, ...], own: float) -> tuple[float, ...]:
    return tuple(sorted({*values, float(own)}))
