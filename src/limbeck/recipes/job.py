"""Training and testing as a recipe says: what a single run and a comparison share."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from limbeck.data import DataSet, InMemory, make_loader
from limbeck.distillers import Scheme
from limbeck.engine import Evaluation, evaluate, fit
from limbeck.models import load_weights
from limbeck.recipes import build, schema
from limbeck.recipes.machine import Machine
from limbeck.recipes.methods import Places
from limbeck.recipes.teachers import Candidate
from limbeck.taps import evaluating
from limbeck.teachers import RememberedTeacher, Teacher, memory_need

TEST_BATCH = 1000
ASKING_BATCH = 500
REMEMBERED_BYTES = 2 * 2**30
"""A teacher's signal for all samples is kept in memory up to this size."""


@dataclass(frozen=True)
class Job:
    """One recipe on one data set, in one folder, on one machine."""

    recipe: schema.Recipe
    data: DataSet
    machine: Machine
    fabric: Fabric
    out: Path
    resume: bool = False

    def train(self, scheme: Scheme, phase: str, teacher: Teacher | None = None) -> dict[str, Any]:
        """Train a student; with `resume`, from where it stood. Gives its epochs and seconds."""
        finished = self.out / f"{phase}.json"
        if self.resume and finished.exists():
            scheme.to(self.fabric.device)
            load_weights(scheme.student, self.out / f"{phase}.safetensors")
            return dict(json.loads(finished.read_text(encoding="utf-8"))["training"])
        recipe, data, device = self.recipe, self.data, self.fabric.device
        train = make_loader(
            data.train,
            recipe.data.batch_size,
            shuffle=True,
            drop_last=recipe.data.drop_last,
            seed=recipe.seed,
            workers=recipe.data.workers,
            **self.machine.place(self.fabric),
        )
        run = fit(
            scheme,
            train,
            teacher=teacher,
            val=make_loader(data.validation, TEST_BATCH, device=device) if data.validation else None,
            epochs=recipe.epochs,
            optimizer=build.optimizer(recipe.optimizer),
            schedule=build.schedule(recipe.schedule, recipe.epochs),
            accumulate=recipe.accumulate,
            clip=recipe.clip,
            keep=recipe.keep,
            fabric=self.fabric,
            out=self.out,
            resume=self.resume,
            phase=phase,
            about=build.about(recipe.student, data),
            seed=recipe.seed,
            progress=self.machine.progress,
            loggers=self.machine.loggers,
        )
        return {"epochs": recipe.epochs, "seconds": round(run.seconds, 3)}

    def test(self, scheme: Scheme, teacher: Teacher | None = None) -> Evaluation:
        """The one look at the test set."""
        scheme.to(self.fabric.device)
        loader = make_loader(self.data.test, TEST_BATCH, device=self.fabric.device)
        with evaluating(scheme):
            return evaluate(scheme.predict, loader, device=self.fabric.device, teacher=teacher)


def places(recipe: schema.Recipe, student: nn.Module, found: Sequence[Candidate], data: DataSet) -> Places:
    """Where the recipe's networks can be compared; of several teachers the first one counts."""
    return Places(student, found[0].module, build.shape(recipe.student, data), len(data.train))


def rehearse(recipe: schema.Recipe, scheme: Scheme, teacher: Teacher | None, data: DataSet) -> None:
    """Find what does not fit before anything is written or trained."""
    build.optimizer(recipe.optimizer)
    build.schedule(recipe.schedule, recipe.epochs)
    make_loader(data.train, recipe.data.batch_size, drop_last=recipe.data.drop_last)
    example = next(iter(make_loader(data.train, 2)))
    copy.deepcopy(scheme).prepare(example, teacher(example) if teacher else None)


def ask_once(teacher: Teacher, recipe: schema.Recipe, data: DataSet, fabric: Fabric) -> tuple[Teacher, float]:
    """The teacher, asked once about every sample if that is possible and pays; and the seconds that it took.

    It is possible where the samples lie in memory without augmentation, and their signal fits beside them.
    """
    if not isinstance(data.train, InMemory) or recipe.epochs == 1:
        return teacher, 0.0
    loader = make_loader(data.train, ASKING_BATCH, device=fabric.device)
    if memory_need(teacher, next(iter(loader)).first(2), len(data.train)) > REMEMBERED_BYTES:
        return teacher, 0.0
    began = time.perf_counter()
    remembered = RememberedTeacher(teacher, loader, len(data.train))
    return remembered, time.perf_counter() - began


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The test figures under the names that result.json uses."""
    named = {
        "accuracy": evaluation.top1,
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "calibration_error": evaluation.calibration_error,
        "agreement": evaluation.agreement,
    }
    return {f"test_{name}": value for name, value in named.items() if value is not None}
