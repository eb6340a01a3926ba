"""A search before its first trial: everything that can be found before anything is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.compare.cells import recipe_of
from limbeck.data import DataSet
from limbeck.errors import RequestError
from limbeck.notices import muted
from limbeck.recipes import schema
from limbeck.runs import components, learners, teachers
from limbeck.runs.checks import dry_run
from limbeck.runs.identity import Identity, Origins
from limbeck.runs.machine import Machine
from limbeck.runs.settled import settled
from limbeck.tuning.contenders import Contender, contenders, names_of
from limbeck.tuning.settings import with_settings
from limbeck.tuning.space import GivenSpace, Range, as_content

FEW, SHARE_OF_FEW, SHARE = 10_000, 0.2, 0.1
"""The share of the training set that is cut off for validation: below so many samples the first, else the second."""


@dataclass(frozen=True)
class Prepared:
    """A search before its first trial.

    Attributes:
        recipe: With its precision decided, and a validation split.
        data: All splits.
        searched: What the search sees: in the test set's place the validation split.
        found: The teachers.
        student: The network, as it starts.
        contenders: Who is tuned.
        made_of: What the search's figures depend on.
        cut: Whether the validation split was cut from the training set for the search.
    """

    recipe: schema.Recipe
    data: DataSet
    searched: DataSet
    found: Sequence[teachers.Candidate]
    student: nn.Module
    contenders: Sequence[Contender]
    made_of: Identity
    cut: bool

    @property
    def name(self) -> str:
        """What the search is called in a storage: the same for one recipe, space and data on all machines."""
        splits = self.made_of["data"]["splits"]
        portable = {name: split.get("portable", split["digest"]) for name, split in splits.items()}
        content = {**self.made_of, "data": {"classes": self.made_of["data"]["classes"], "splits": portable}}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.recipe.name} {digest}"


def prepare(
    recipe: schema.Recipe,
    methods: Sequence[str],
    variants: Mapping[str, schema.Recipe],
    space: GivenSpace,
    root: Path,
    machine: Machine,
) -> Prepared:
    """Build what a search needs, and check it.

    Args:
        recipe: Whose settings are searched.
        methods: Names, as `compare` takes them.
        variants: The recipe's variants that may be named.
        space: What a file of a space says.
        root: Folder of the data.
        machine: Devices.

    Raises:
        RequestError: Something does not fit.
    """
    names, asked = names_of(methods, variants), recipe
    recipe, data, cut = _with_validation(recipe, root)
    if not components.task(recipe, data).labelled:
        raise RequestError("a search stands beside the baseline, which learns from labels, and this task has none")
    searched = seen(data)
    found = teachers.candidates(recipe, searched, machine)
    student = components.model(recipe.student, searched, recipe.seed)
    recipe = settled(recipe, student, searched, machine)
    for name in names[1:]:  # a variant that changes more is refused, measured by the recipe as it was asked for
        recipe_of(asked, name, variants, student)
    varied = {name: recipe.model_copy(update={"distill": one.distill}) for name, one in variants.items()}
    everyone = contenders(recipe, names, varied, space, student, found, searched)
    if any(one.recipe.quantize for one in everyone):
        raise RequestError(
            "a search finds settings for students in fp32: leave quantize (and ptq, qat, qat-kd) out, and train the "
            "best of it with quantize afterwards"
        )
    for one in everyone:
        _check(one, student, found, searched)
    origins = Origins(student, found, searched, root)
    made_of = origins.of(recipe)
    taught = {one.name: origins.of(one.recipe) for one in everyone if one.taught}
    spaces = as_content({one.name: one.space for one in everyone})
    ways = {name: one["recipe"]["distill"] for name, one in taught.items()}
    made_of["recipe"] = {**made_of["recipe"], "space": spaces, "contenders": ways}
    made_of["code"] = {name: digest for one in (made_of, *taught.values()) for name, digest in one["code"].items()}
    return Prepared(recipe, data, searched, found, student, everyone, made_of, cut)


def seen(data: DataSet) -> DataSet:
    """What a search sees of data: in the test set's place the validation split."""
    assert data.validation is not None
    return replace(data, test=data.validation)


def _with_validation(recipe: schema.Recipe, root: Path) -> tuple[schema.Recipe, DataSet, bool]:
    """The recipe and its data with a validation split; where there is none, a share of the training set is cut off."""
    data = components.data(recipe.data, root)
    if data.validation is not None:
        return recipe, data, False
    share = SHARE_OF_FEW if len(data.train) < FEW else SHARE
    spec = recipe.data.model_copy(update={"validation": share})
    return recipe.model_copy(update={"data": spec}), components.data(spec, root), True


def _check(contender: Contender, student: nn.Module, found: Sequence[teachers.Candidate], data: DataSet) -> None:
    """Raise RequestError for a recipe that cannot be carried out, by itself or with a value of its space."""
    dry_run(contender.recipe, student, found, data)
    for key, domain in contender.space.items():
        for value in domain.ends:
            try:
                with muted():
                    _check_value(contender, key, value, isinstance(domain, Range), student, found, data)
            except RequestError as error:
                raise RequestError(f"the space of {contender.name}: {key} {value!r}: {error}") from error


def _check_value(
    contender: Contender,
    key: str,
    value: Any,
    domain_of_numbers: bool,
    student: nn.Module,
    found: Sequence[teachers.Candidate],
    data: DataSet,
) -> None:
    recipe = with_settings(contender.recipe, {key: value})
    root = key.partition(".")[0]
    if root in ("optimizer", "schedule"):
        components.optimizer(recipe.optimizer)
        components.schedule(recipe.schedule, recipe.epochs)
    elif domain_of_numbers and root == "distill":  # of another weight or temperature every shape is the same
        for term in recipe.distill.terms:
            learners.term(term)
    else:
        network = components.model(recipe.student, data, recipe.seed) if root == "student" else student
        dry_run(recipe, network, found, data)
