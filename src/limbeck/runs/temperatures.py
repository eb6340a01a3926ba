"""At which temperature a recipe's terms read the teacher's logits."""

from __future__ import annotations

from limbeck.recipes import schema
from limbeck.runs import learners


def temperature(recipe: schema.Recipe) -> float:
    """The temperature of the first term that reads the teacher's logits; 1 without such a term.

    Args:
        recipe: With the terms of its method written out.
    """
    return next((one for term in recipe.distill.terms for one in learners.term(term).teacher_temperatures), 1.0)
