"""What a recipe will cost, from a probe of a few steps, before anything is spent."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from limbeck.data import DataSet, Loader, make_loader
from limbeck.data.views import Views
from limbeck.distillers import Distiller, Scheme
from limbeck.engine import fit
from limbeck.engine.balance import Pull
from limbeck.engine.groups import Grouped
from limbeck.engine.optim import MakeOptimizer
from limbeck.errors import RequestError
from limbeck.models import multiply_adds, parameter_count
from limbeck.notices import muted
from limbeck.recipes import schema
from limbeck.runs import components, teachers
from limbeck.runs.cache import estimated
from limbeck.runs.checks import rehearse
from limbeck.runs.machine import Machine
from limbeck.runs.stages import assemble
from limbeck.runs.teacher_outputs import Asking
from limbeck.runs.train import settled
from limbeck.runs.written_out import setting_of
from limbeck.teachers import RememberedTeacher, Teacher

STEPS = 20
"""Steps of the probe, or a few more, after a pass through their samples to warm up."""
ENOUGH, MOST = 0.5, 40
"""Seconds that a probe should last, and how often at most it goes through its samples for that."""


@dataclass(frozen=True)
class Side:
    """One network of a plan.

    Attributes:
        parameters: Their number.
        multiply_adds: Of one sample's forward pass.
        step_seconds: A training step's time; None where it is not trained.
        training_seconds: All its steps.
    """

    parameters: int
    multiply_adds: int
    step_seconds: float | None
    training_seconds: float | None


def plan(
    recipe: schema.Recipe, *, root: Path, samples: int | None = None, machine: Machine | None = None
) -> dict[str, Any]:
    """Probe a recipe's steps, and reckon up what all of it takes on this machine.

    Args:
        recipe: What is to be done.
        root: Folder of the data.
        samples: Reckon for a training set of this size in place of the recipe's own.
        machine: Devices and display.

    Returns:
        "samples", "epochs", "steps", "teachers" and "student" (`Side` as mappings), the student's training with a
        "live" and with a "stored" teacher in seconds, and "store": views, bytes, seconds to ask, bytes read a second.
        With terms also "balance" (`limbeck.engine.balance.Pull` as mappings) on the first batch, with the teacher as
        an earlier run has kept it, or untrained where none has ("teacher_trained").

    Raises:
        RequestError: Something of the recipe does not fit.
    """
    machine = replace(machine or Machine(), progress=False)
    data = components.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, recipe.seed)
    rehearse(recipe, student, found, data)
    if recipe.distill.scheme not in ("offline", "self", "mutual", "mean-teacher", "class-wise", "teacher-free"):
        raise RequestError(f"scheme {recipe.distill.scheme} is a chain of trainings; plan each of them by itself")
    method = recipe.distill.method
    if method is not None and setting_of(method).stages:
        raise RequestError(f"method {method} trains in stages, which are not planned; plan another method or setting")
    recipe = settled(recipe, student, data, machine)
    count = samples or len(data.train)
    probe = _Probe(recipe, data, machine, count)
    alone = probe.student(components.alone(copy.deepcopy(student), recipe), None)
    example = components.example(recipe.student, data)
    result: dict[str, Any] = {
        "recipe": recipe.title,
        "samples": count,
        "epochs": recipe.epochs,
        "batch_size": recipe.data.batch_size,
        "teachers": [vars(probe.teacher(one)) for one in found],
        "student": vars(
            Side(parameter_count(student), multiply_adds(student, example), alone, probe.steps * recipe.epochs * alone)
        ),
    }
    trained = teachers.load_kept(found)
    resolved, scheme, live = assemble(recipe, copy.deepcopy(student), found, data)
    step = probe.student(copy.deepcopy(scheme), live)
    result["live"] = probe.steps * recipe.epochs * step
    if probe.balance:
        result["balance"] = [vars(pull) | {"warning": pull.warning} for pull in probe.balance]
        result["teacher_trained"] = trained or not found
    if live is not None:
        result |= probe.stored(resolved, scheme, live)
    return result


class _Probe:
    """Measures steps on the first samples of the data."""

    def __init__(self, recipe: schema.Recipe, data: DataSet, machine: Machine, samples: int) -> None:
        self.recipe, self.machine, self.samples = recipe, machine, samples
        few = min(len(data.train), STEPS * recipe.data.batch_size)
        self.data = replace(data, train=data.train.subset(torch.arange(few)))
        self.fabric = machine.fabric(recipe.precision)
        self.balance: Sequence[Pull] = ()
        # Where each epoch is a view of its own, cached teacher outputs have no more epochs than were asked.
        self.changing = Asking(recipe, self.data, self.fabric, schema.Store()).views > 1

    @property
    def steps(self) -> int:
        """Steps of an epoch of the whole."""
        size = self.recipe.data.batch_size
        return self.samples // size if self.recipe.data.drop_last else math.ceil(self.samples / size)

    def student(self, scheme: Scheme, teacher: Teacher | None) -> float:
        """Seconds of a student's step."""
        views = components.views(self.recipe.data, self.data)
        size = min(self.recipe.data.batch_size, len(self.data.train))
        loader = self._loader(size, views, self.fabric, pairs=getattr(scheme, "other_view", False))
        make, mode = components.optimizer(self.recipe.optimizer), self.recipe.compile
        return self._step(scheme, loader, make, teacher, self.fabric, compile=mode)

    def teacher(self, one: teachers.Candidate) -> Side:
        """A teacher's size, and its training where it is still to be trained."""
        sample = components.example(one.spec, self.data)
        size = parameter_count(one.module), multiply_adds(one.module, sample)
        if one.kept is None or (one.kept / "teacher.json").exists():
            return Side(*size, None, None)
        batch = one.spec.batch_size or self.recipe.data.batch_size
        fabric = self.machine.fabric(self.machine.precision(one.spec.precision, one.module, sample, batch))
        views = components.teacher_views(one.spec, self.recipe, self.data)
        here = min(batch, len(self.data.train))
        loader = self._loader(here, views, fabric)
        scheme = Distiller(copy.deepcopy(one.module), inputs=components.inputs(one.spec))
        step = self._step(scheme, loader, components.optimizer(one.spec.optimizer), None, fabric)
        return Side(*size, step, math.ceil(self.samples / batch) * (one.spec.epochs or 0) * step)

    def stored(self, recipe: schema.Recipe, scheme: Scheme, live: Teacher) -> dict[str, Any]:
        """The same student with a teacher that was asked before, and what asking and keeping take."""
        store = recipe.teachers[0].store if recipe.teachers else schema.Store()
        asking = Asking(recipe, self.data, self.fabric, store)
        here = len(self.data.train)
        estimate = estimated(asking, live)
        views = min(1 + _rounds(math.ceil(here / asking.batch_size)), asking.views)
        known = RememberedTeacher(live, (asking.batches(view) for view in range(views)), here, views)
        step = self.student(scheme, known)
        whole = self.samples / here
        sample_bytes = estimate.bytes / estimate.views / here
        return {
            "stored": self.steps * recipe.epochs * step,
            "store": {
                "views": estimate.views,
                "bytes": round(whole * estimate.bytes),
                "seconds": whole * estimate.seconds,
                "bytes_a_second": sample_bytes * recipe.data.batch_size / step,
            },
        }

    def _loader(self, batch_size: int, views: Views, fabric: Fabric, pairs: bool = False) -> Loader:
        how: dict[str, Any] = {"device": fabric.device, "workers": self.recipe.data.workers, "pairs": pairs}
        return make_loader(self.data.train, batch_size, shuffle=True, views=views, **how)

    def _step(
        self,
        scheme: Scheme,
        loader: Loader,
        optimizer: MakeOptimizer | Grouped,
        teacher: Teacher | None,
        fabric: Fabric,
        compile: str | None = None,
    ) -> float:
        options: dict[str, Any] = {"optimizer": optimizer, "fabric": fabric, "compile": compile, "progress": False}

        def seconds(rounds: int) -> float:
            with muted():
                run = fit(scheme, loader, teacher=teacher, epochs=1 + rounds, **options)
            self.balance = run.balance or self.balance
            return float(run.metrics[-1]["seconds"] - run.metrics[0]["seconds"])

        rounds = _rounds(len(loader))
        taken = seconds(rounds)
        if taken < ENOUGH and not self.changing:  # 20 steps of a small network take 10 ms, too short to tell
            rounds = min(MOST, math.ceil(rounds * ENOUGH / max(taken, ENOUGH / MOST)))
            taken = seconds(rounds)
        return taken / (rounds * len(loader))


def _rounds(steps: int) -> int:
    """How often the probe's samples are gone through, in so many steps each, to be measured."""
    return math.ceil(STEPS / steps)
