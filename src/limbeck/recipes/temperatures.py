"""At which temperatures a recipe's terms read the teacher's logits."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck.recipes import build, schema


def temperature(recipe: schema.Recipe) -> float:
    """The temperature of the first term that reads the teacher's logits; 1 without such a term.

    Args:
        recipe: With the terms of its method written out.
    """
    return next(iter(temperatures(recipe)), 1.0)


def temperatures(recipe: schema.Recipe) -> Sequence[float]:
    """Those of all terms that read the teacher's logits, each once.

    Args:
        recipe: With the terms of its method written out.
    """
    found = (build.term(term).teacher_temperatures for term in recipe.distill.terms)
    return list(dict.fromkeys(one for some in found for one in some))
