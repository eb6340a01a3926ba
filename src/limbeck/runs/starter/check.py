"""Whether a starter recipe runs: its data and networks are made, and a step of each training is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from limbeck.data import DataSet, InMemory
from limbeck.errors import RequestError
from limbeck.folders import data_root
from limbeck.recipes.schema import Data, Recipe
from limbeck.runs import components, teachers
from limbeck.runs.checks import dry_run
from limbeck.runs.machine import Machine

_FETCHED: Mapping[str, tuple[tuple[int, int, int], int]] = {
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
}
"""Form and classes of the data sets that a run may download; a look at a recipe downloads nothing."""


def check_starter(recipe: Recipe, folder: Path) -> None:
    """Carry out the checks of `limbeck run` for a recipe that is not written yet.

    Args:
        recipe: The recipe.
        folder: Where it will lie.

    Raises:
        RequestError: What does not fit, in one line.
    """
    try:
        data = _data(recipe.data, folder)
        found = teachers.candidates(recipe, data, Machine("cpu", progress=False))
        dry_run(recipe, components.model(recipe.student, data, recipe.seed), found, data)
    except RequestError as error:
        raise RequestError(f"nothing is written, for this recipe would not run: {error}") from error


def _data(spec: Data, folder: Path) -> DataSet:
    """The data, or, of those that a run may download, black images of their form."""
    if spec.name not in _FETCHED:
        return components.data(spec, data_root() if spec.root is None else folder.absolute() / spec.root)
    shape, classes = _FETCHED[spec.name]
    count = max(2 * classes, spec.batch_size)
    part = InMemory(torch.zeros(count, *shape, dtype=torch.uint8), torch.arange(count) % classes)
    return DataSet(spec.name, part, part, classes, shape, validation=part if spec.validation else None)
