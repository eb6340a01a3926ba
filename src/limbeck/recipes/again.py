"""A finished run, taken up again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from limbeck.data import make_loader
from limbeck.engine import evaluate
from limbeck.engine.first_batch import settle
from limbeck.models import load_weights
from limbeck.recipes import build, teachers
from limbeck.recipes.folder import RECIPE, read_result
from limbeck.recipes.in_use import using
from limbeck.recipes.read import read
from limbeck.taps import evaluating


def evaluate_run(run: Path, root: Path) -> dict[str, Any]:
    """The student of a run on its test set, and its agreement with the teacher where that is kept.

    Args:
        run: The run folder.
        root: Folder of the data.

    Raises:
        RequestError: The folder holds no finished run, or its data cannot be read.
    """
    read_result(run)
    recipe = read(str(run / RECIPE))
    data = build.data(recipe.data, root)
    student = build.model(recipe.student, data, recipe.seed)
    load_weights(student, run / "student.safetensors")
    found = teachers.candidates(recipe, data)
    for one in found:
        if one.kept and (one.kept / "teacher.safetensors").exists():
            with using(one.kept):
                load_weights(one.module, one.kept / "teacher.safetensors")
            one.source = "reused"
    known = bool(found) and all(one.kept is None or one.source == "reused" for one in found)
    scheme = build.alone(student, recipe)
    loader = make_loader(data.test, build.held_out_batch(recipe, data))
    settle(scheme, next(iter(loader)), recipe.seed)
    with evaluating(scheme):
        figures = evaluate(
            scheme.predict,
            loader,
            teacher=teachers.signal(found, mix=recipe.ensemble) if known else None,
        )
    return figures.as_dict()
