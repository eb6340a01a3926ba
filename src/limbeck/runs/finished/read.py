"""A finished run, taken up again from its folder: on this machine or another, with or without its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck.data import DataSet, Loader, make_loader
from limbeck.distillers import Scheme
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.first.batch import settle
from limbeck.errors import RequestError
from limbeck.folders import data_root
from limbeck.measure import evaluate
from limbeck.models import move
from limbeck.models.foreign.hugging_face import is_gone
from limbeck.models.load import load_own, read_description
from limbeck.recipes import schema
from limbeck.recipes.read import read
from limbeck.runs import components, identity, learners, teachers
from limbeck.runs.cache.in_use import using
from limbeck.runs.folder import RECIPE, RESULT, read_result
from limbeck.runs.identity import Identity, Origins
from limbeck.runs.machine import Machine
from limbeck.runs.same import refuse
from limbeck.runs.settled import settled
from limbeck.taps import evaluating


@dataclass(frozen=True)
class Finished:
    """What a finished run left.

    Attributes:
        recipe: Its recipe.
        data: Its data set, found again.
        student: Its student, with its weights.
        made_of: What it records of its origins; None without that file.
    """

    recipe: schema.Recipe
    data: DataSet
    student: nn.Module
    made_of: Identity | None


def take_up(run: Path, root: Path | None = None) -> Finished:
    """Read a finished run's student and its data.

    Args:
        run: The run folder.
        root: Folder of the data; by default the one that the run had, else the usual one.

    Raises:
        RequestError: The folder holds no finished run, the weights are not the run's own, the data cannot be read, or
            their classes are others than those that the student learned.
    """
    read_result(run)
    recipe, made_of = read(str(run / RECIPE)), identity.read(run)
    root = root or identity.data_root(run) or data_root()
    data = components.data(recipe.data, root)
    if made_of is not None:
        _check_data(run, made_of, data, root)
    spec = _as_built(recipe.student, read_description(run / "student.json"))
    student = components.model(spec, data, recipe.seed)
    load_own(student, run / "student.json")
    return Finished(recipe, data, student, made_of)


def _as_built(spec: schema.Model, about: Mapping[str, Any]) -> schema.Model:
    """How a run's student is built, without weights: a method may ship another network than the recipe's student."""
    kept = {name: getattr(spec, name) for name in ("inputs", "mean", "std", "size", "output", "freeze")}
    return schema.Model(model=about["model"], **kept, **about["options"])


def classifier(run: Path, root: Path | None, what: str) -> Finished:
    """The same, of a run whose student is a classifier.

    Args:
        run: The run folder.
        root: Folder of the data.
        what: What is asked for, and is for classifiers only, such as "limbeck ship".

    Raises:
        RequestError: As `take_up` raises, or the student learned another task.
    """
    found = take_up(run, root)
    task = components.task(found.recipe, found.data)
    if not task.classifies_samples:
        raise RequestError(
            f"{what} is for classifiers, and the student of {run} learned {task.name}; see limbeck evaluate"
        )
    return found


def evaluate_run(run: Path, root: Path | None = None, machine: Machine | None = None) -> dict[str, Any]:
    """The student of a run on its test set, and its agreement with the teacher where that can be found.

    Args:
        run: The run folder.
        root: Folder of the data; by default the one that the run had, else the usual one.
        machine: The device; by default the CPU.

    Raises:
        RequestError: As `take_up` raises, or the device is not there.
    """
    return evaluated(run, take_up(run, root), machine)


def ready(found: Finished, machine: Machine | None = None) -> tuple[Scheme, Loader]:
    """A run's student, ready to predict on a machine's device, and the loader of its test set."""
    device = torch.device("cpu") if machine is None else machine.fabric("32-true").device
    scheme = learners.alone(found.student, found.recipe, found.data)
    move(scheme, device)
    loader = make_loader(found.data.test, components.held_out_batch(found.recipe, found.data), device=device)
    settle(scheme, next(iter(loader)), found.recipe.seed)
    return scheme, loader


def evaluated(run: Path, found: Finished, machine: Machine | None = None) -> dict[str, Any]:
    """The same of a run that is taken up already."""
    scheme, loader = ready(found, machine)
    teaching = teachers_of(run, found)
    with evaluating(scheme):
        mix = found.recipe.ensemble
        figures = evaluate(scheme.predict, loader, teacher=teachers.as_one(teaching, mix=mix) if teaching else None)
    return figures.as_dict()


def finished_run(recipe: schema.Recipe, run: Path, root: Path, machine: Machine) -> dict[str, Any] | None:
    """The result of a run that is asked for again, if it is finished: as it was written, for it is not made anew.

    Its teacher's file may be gone by now; the recipe, the user's code and the data are those of the run.

    Raises:
        RequestError: It is a run of something else.
    """
    if not (run / RESULT).exists() or not (run / RECIPE).exists():
        return None
    data = components.data(recipe.data, root)
    student = _as_begun(recipe, data, run)
    before, found = identity.read(run), _known(recipe, data)
    now = Origins(student, found, data, root).of(settled(recipe, student, data, machine))
    if before is not None:
        # Nothing is trained: what other versions would make of it plays no part, nor what a missing teacher needs.
        now = {**now, "versions": before["versions"]}
        gone = recipe.student.weights and not Path(recipe.student.weights).exists()
        if gone or is_gone(recipe.student.model):
            now["weights"] = {name: one for name, one in now["weights"].items() if name != identity.START}
        if len(found) < len(recipe.teachers):
            now["code"] = {**before["code"], **now["code"]}
            if recipe.distill.model_dump() == read(str(run / RECIPE)).distill.model_dump():
                # A method is written out only with its teachers at hand.
                now["recipe"] = {**now["recipe"], "distill": before["recipe"]["distill"]}
    refuse(run, now)
    tell(f"the run in {run} is finished: its result is given as it is, and nothing is trained")
    return read_result(run)


def _as_begun(recipe: schema.Recipe, data: DataSet, run: Path) -> nn.Module:
    """The student with the weights that it began from, where their file is still there."""
    spec: schema.Model = recipe.student
    if is_gone(spec.model):
        tell(f"the student's own start is left out of the checks: {spec.model} is not there")
        spec = _as_built(spec, read_description(run / "student.json"))
    if spec.weights and not Path(spec.weights).exists():
        tell(f"the student's given weights are left out of the checks: {spec.weights} is not there")
        spec = spec.model_copy(update={"weights": None})
    return components.model(spec, data, recipe.seed)


def _known(recipe: schema.Recipe, data: DataSet) -> list[teachers.Candidate]:
    """The recipe's teachers; none where one of them cannot be built, its file being gone."""
    try:
        return teachers.candidates(recipe, data)
    except RequestError as error:
        tell(f"the teacher is left out of the checks: {error}")
        return []


def _check_data(run: Path, made_of: Identity, data: DataSet, root: Path) -> None:
    """Refuse other classes, and say what else differs: a student may be tested on new samples."""
    now = Origins(nn.Identity(), [], data, root).described
    changed = identity.data_differences(made_of["data"], now)
    if made_of["data"]["classes"] != now["classes"]:
        raise RequestError(
            f"the student of {run} learned other classes: {changed[0]} in {root}; --data-root names the folder of data "
            "with the same classes in the same order"
        )
    tested = [change for change in changed if "test" in change]
    if tested:
        tell(f"these are not the figures of {run}: {'; '.join(tested)} in {root}")


def teachers_of(run: Path, found: Finished) -> list[teachers.Candidate]:
    """The teachers of a run with the weights that they had then; none, and why is said, where one is not there."""
    try:
        candidates = teachers.candidates(found.recipe, found.data)
        for one in candidates:
            _bring_back(run, one)
            expected = found.made_of["weights"].get(one.name, "") if found.made_of else ""
            if expected and not identity.has_weights(one, expected):
                raise RequestError(f"the {one.name} has other weights than in the run")
    except RequestError as error:
        tell(f"agreement with the teacher is left out: {error}")
        return []
    return candidates


def _bring_back(run: Path, one: teachers.Candidate) -> None:
    """Give a teacher that was trained here its weights, from the run's folder or from limbeck's cache."""
    if one.kept is None:
        return
    places = ((run, one.name), (one.kept, "teacher"))
    place = next((folder / f"{name}.json" for folder, name in places if (folder / f"{name}.json").exists()), None)
    if place is None:
        raise RequestError(f"the trained {one.name} is neither in {run} nor in limbeck's cache")
    with using(one.kept):
        load_own(one.module, place)
    one.source = "reused"
