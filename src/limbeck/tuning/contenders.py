"""Who is tuned: the baseline and each method, with what is searched for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from limbeck.compare.cells import BACKBONE, BASELINE, OWN, named, recipe_of
from limbeck.compare.labels import own_label
from limbeck.data import DataSet
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.recipes.methods import METHODS, OfNetwork, OfStage
from limbeck.runs.settled import settled_as
from limbeck.runs.teachers import Candidate
from limbeck.runs.train import places
from limbeck.runs.written_out import Find, setting_of, with_terms
from limbeck.tuning.defaults import default_space
from limbeck.tuning.settings import Settings, own_settings, paths
from limbeck.tuning.space import GivenSpace, Space, check_keys

TAKEN = {"title", "data", "device", "epochs", "seed", "trial", "monitor", "mode", "samples", "fresh_seeds", "verdict"}
TAKEN |= {"optimism", "importances", "cost", "teacher", "teacher_outputs", "environment", "out"}
"""The keys beside the contenders' in tune.json, which none of them can be called."""


@dataclass(frozen=True)
class Contender:
    """One of those among whom the trials are shared out.

    Attributes:
        name: "baseline", or what `compare` calls the method.
        recipe: How it is trained, the terms of its method written out where they are plain data.
        space: What is searched.
        label: What it is called in tables: its name, or, of the recipe's own way, what it does.
    """

    name: str
    recipe: schema.Recipe
    space: Space
    label: str

    @property
    def taught(self) -> bool:
        """Whether the recipe's way to distil has a say; the baseline learns from labels."""
        return self.name != BASELINE

    @property
    def own(self) -> Settings:
        """The recipe's own values at the keys of the space."""
        return own_settings(self.recipe, self.space)

    @property
    def folder(self) -> str:
        """What its files are called."""
        return self.name.lstrip(":").replace(":", "-")


def names_of(methods: Sequence[str], varied: Mapping[str, schema.Recipe]) -> list[str]:
    """The contenders' names, the baseline first.

    Raises:
        RequestError: A name that nothing has, or no method besides the baseline.
    """
    if BACKBONE in methods:
        raise RequestError(f"{BACKBONE} is a baseline of its own, which compare has; leave it out")
    names = named(methods, varied)
    if taken := [name for name in names if name in TAKEN]:
        raise RequestError(f"a variant called {taken[0]} cannot be tuned, tune.json has a key of that name; rename it")
    return names


def contenders(
    recipe: schema.Recipe,
    names: Sequence[str],
    varied: Mapping[str, schema.Recipe],
    given: GivenSpace,
    student: nn.Module,
    found: Sequence[Candidate],
    data: DataSet,
) -> list[Contender]:
    """The contenders of these names, each with its space.

    Args:
        recipe: The recipe, its precision decided.
        names: As `names_of` gives them.
        varied: The recipe's variants that may be named.
        given: What a file of a space says.
        student: The network, as it starts.
        found: The teachers.
        data: What is learned from.

    Raises:
        RequestError: A method that does not fit the recipe, or a space with two keys for one thing.
    """
    return [_contender(recipe, name, names, varied, given, student, found, data) for name in names]


def _contender(
    recipe: schema.Recipe,
    name: str,
    names: Sequence[str],
    varied: Mapping[str, schema.Recipe],
    given: GivenSpace,
    student: nn.Module,
    found: Sequence[Candidate],
    data: DataSet,
) -> Contender:
    taught = name != BASELINE
    own = settled_as(recipe, recipe_of(recipe, name, varied, student)) if taught else recipe
    if taught:
        own = _written(own, partial(places, own, student, found, data))
    space = given.over(default_space(own, taught), name, taught)
    check_keys(space, name)
    return Contender(name, own, space, _label(recipe, space, names) if name == OWN else name)


def _label(recipe: schema.Recipe, space: Space, names: Sequence[str]) -> str:
    """What the recipe's own way to distil does; temperatures that are searched are left out."""
    searched = {path for key in space if key.endswith(".temperature") for path in _reached(recipe, key)}
    terms = [
        one.model_copy(update={"temperature": None}) if f"distill.terms.{place}.temperature" in searched else one
        for place, one in enumerate(recipe.distill.terms)
    ]
    bare = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"terms": terms})})
    return own_label(bare, [one for one in names if one != OWN])


def _reached(recipe: schema.Recipe, key: str) -> list[str]:
    return paths(recipe.model_dump(mode="json"), key) if recipe.distill.terms else []


def _written(recipe: schema.Recipe, find: Find) -> schema.Recipe:
    """The recipe with the terms of its method as plain data, whose values can be searched.

    As it is where the method trains in stages, ships a network of its own, or takes values from the trained teacher.
    """
    method = recipe.distill.method
    if method is None or method.partition(":")[0] not in METHODS:
        return recipe
    setting = setting_of(method)
    if setting.stages or setting.network is not None:
        return recipe
    values = [value for term in setting.terms(find()) for value in term.values()]
    taken = any(isinstance(value, OfNetwork | OfStage) for value in values)
    return recipe if taken else with_terms(recipe, find, {})
