"""What a recipe will cost, from a probe of a few steps, before anything is spent."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from limbeck.data import DataSet, Loader, make_loader
from limbeck.data.views import Views
from limbeck.distillers import Scheme
from limbeck.engine import Hardware, fit
from limbeck.engine.first.balance import Pull
from limbeck.engine.optimizers.groups import Grouped
from limbeck.engine.optimizers.named import MakeOptimizer
from limbeck.errors import RequestError
from limbeck.models import multiply_adds, parameter_count
from limbeck.notices import muted
from limbeck.quantization.training import learner
from limbeck.recipes import schema
from limbeck.runs import components, learners, quantized, teachers
from limbeck.runs.checks import dry_run
from limbeck.runs.cost.step_memory import step_memory
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.beforehand import estimated
from limbeck.runs.settled import settled
from limbeck.runs.stages import assemble, uses_teacher
from limbeck.runs.train import places
from limbeck.runs.written_out import parts_of
from limbeck.teachers import CachedTeacher, StoredTeacher, Teacher

if TYPE_CHECKING:
    from lightning_fabric import Fabric

STEPS = 20
"""Steps of the probe, or a few more, after a pass through their samples to warm up."""
OWN = "student"
"""What the student's own training is called among its stages."""
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
    """Probe a recipe's steps, and estimate what all of it takes on this machine.

    Args:
        recipe: What is to be done.
        root: Folder of the data.
        samples: Estimate for a training set of this size in place of the recipe's own.
        machine: Devices and display.

    Returns:
        "samples", "epochs", "steps", "teachers" and "student" (`Side` as mappings), the student's training with a
        "online" and with a "stored" teacher in seconds, and "store": views, bytes, seconds to ask, bytes read a second.
        "memory" is what a step of the baseline holds (`limbeck.runs.cost.step_memory`).
        With terms also "balance" (`limbeck.engine.first.balance.Pull` as mappings) on the first batch, with the
        teacher as an earlier run has kept it, or untrained where none has ("teacher_trained"). Of a student that is
        trained in stages these are sums over them, "stages" has each one's name, epochs and seconds with an online
        teacher, and a pull the name of its "stage"; each is measured with the student as it starts.

    Raises:
        RequestError: Something of the recipe does not fit.
    """
    machine = replace(machine or Machine(), progress=False)
    data = components.data(recipe.data, root)
    found = teachers.candidates(recipe, data, machine)
    student = components.model(recipe.student, data, recipe.seed)
    dry_run(recipe, student, found, data)
    if recipe.distill.scheme in ("assistant", "born-again"):
        raise RequestError(f"scheme {recipe.distill.scheme} is a chain of trainings; plan each of them by itself")
    recipe = settled(recipe, student, data, machine)
    count = samples or len(data.train)
    probe = _Probe(recipe, data, machine, count)
    alone = probe.student(learners.alone(copy.deepcopy(student), recipe, data), None)
    own, last = quantized.before(recipe), probe.in_int8(student, found)
    training = probe.steps * own.epochs * alone + sum(one.stored or 0.0 for one in last)
    example = components.example(recipe.student, data)
    result: dict[str, Any] = {
        "recipe": recipe.title,
        "samples": count,
        "epochs": recipe.epochs,
        "batch_size": recipe.data.batch_size,
        "teachers": [vars(probe.teacher(one)) for one in found],
        "student": vars(Side(parameter_count(student), multiply_adds(student, example), alone, training)),
    }
    result["memory"] = step_memory(recipe, student, probe.data, probe.fabric)
    trained = teachers.load_kept(found)
    parts, rest = parts_of(own, lambda: places(own, student, found, data)) if found else ([], own)
    runs = [probe.run(name, one, student, found) for name, one in (*((p.phase, p.recipe) for p in parts), (OWN, rest))]
    runs += last
    result["online"] = sum(one.online for one in runs)
    if len(runs) > 1:
        result["stages"] = [{"name": one.name, "epochs": one.epochs, "online": one.online} for one in runs]
    balanced = [pull for one in runs for pull in one.balance]
    if balanced:
        result["balance"] = balanced
        result["teacher_trained"] = trained or not found
    stores = [one.store for one in runs if one.store is not None]
    if stores:
        result["stored"] = sum(one.stored or 0.0 for one in runs)
        result["store"] = _joined(stores)
    return result


@dataclass(frozen=True)
class _Run:
    """One training of a student, measured.

    Attributes:
        name: Its stage's, or `OWN`.
        epochs: Its length.
        online: Seconds with an online teacher.
        stored: Seconds with stored outputs; None without a teacher.
        balance: Of its losses.
        store: What asking and keeping take; None without a teacher.
    """

    name: str
    epochs: int
    online: float
    balance: Sequence[dict[str, Any]]
    stored: float | None = None
    store: dict[str, Any] | None = None


def _joined(stores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the stores of several trainings take together; read at once is that of the one that reads most."""
    return {
        "views": max(one["views"] for one in stores),
        "bytes": sum(one["bytes"] for one in stores),
        "seconds": sum(one["seconds"] for one in stores),
        "bytes_a_second": max(one["bytes_a_second"] for one in stores),
    }


class _Probe:
    """Measures steps on the first samples of the data."""

    def __init__(self, recipe: schema.Recipe, data: DataSet, machine: Machine, samples: int) -> None:
        self.recipe, self.machine, self.samples, self.whole = recipe, machine, samples, data
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
        if self.recipe.steps_per_epoch is not None:
            return self.recipe.steps_per_epoch
        return self.samples // size if self.recipe.data.drop_last else math.ceil(self.samples / size)

    def run(self, name: str, recipe: schema.Recipe, student: nn.Module, found: Sequence[teachers.Candidate]) -> _Run:
        """One of the trainings that a student has, each measured from the student as it starts."""
        resolved, scheme, online = assemble(recipe, copy.deepcopy(student), found, self.whole)
        self.balance = ()
        heard = online if online is not None and uses_teacher(scheme) else None
        step = self.student(copy.deepcopy(scheme), heard)
        measured: Sequence[Pull] = self.balance
        stage = {} if name == OWN else {"stage": name}
        pulls = [vars(pull) | {"warning": pull.warning} | stage for pull in measured]
        seconds = self.steps * recipe.epochs * step
        kept = not scheme.generates and not isinstance(online, StoredTeacher)
        asked: dict[str, Any] = {"stored": seconds} if online is not None and kept else {}
        if heard is not None and kept:
            asked = self.stored(resolved, scheme, heard)
        return _Run(name, recipe.epochs, seconds, pulls, **asked)

    def in_int8(self, student: nn.Module, found: Sequence[teachers.Candidate]) -> list[_Run]:
        """The epochs with quantisers, where there are any; with stored outputs they take as long as by labels alone."""
        epochs = quantized.epochs_of(self.recipe)
        if self.recipe.quantize is None or not epochs:
            return []
        inputs, task = components.inputs(self.recipe.student), components.task(self.recipe, self.whole)
        taught = self.recipe.quantize.teacher and bool(found)

        def seconds(teacher: Teacher | None) -> float:
            network = quantized.with_quantisers(self.recipe, student, self.whole, samples=2)
            scheme = learner(network, task, inputs, taught=teacher is not None)
            return self.steps * epochs * self.student(scheme, teacher)

        online = teachers.as_one(found, mix=self.recipe.ensemble) if taught else None
        alone = seconds(None) if task.labelled else seconds(online)
        return [_Run("int8", epochs, seconds(online) if online else alone, [], stored=alone)]

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
        if one.kept is None or one.is_kept():
            return Side(*size, None, None)
        batch = one.spec.batch_size or self.recipe.data.batch_size
        fabric = self.machine.fabric(self.machine.precision(one.spec.precision, one.module, sample, batch))
        views = components.teacher_views(one.spec, self.recipe, self.data)
        here = min(batch, len(self.data.train))
        loader = self._loader(here, views, fabric)
        scheme = learners.on_labels(copy.deepcopy(one.module), one.spec, self.recipe, self.data)
        step = self._step(scheme, loader, components.optimizer(one.spec.optimizer), None, fabric)
        return Side(*size, step, math.ceil(self.samples / batch) * (one.spec.epochs or 0) * step)

    def stored(self, recipe: schema.Recipe, scheme: Scheme, online: Teacher) -> dict[str, Any]:
        """The same student with a teacher that was asked before, and what asking and keeping take."""
        store = recipe.teachers[0].store if recipe.teachers else schema.Store()
        asking = Asking(recipe, self.data, self.fabric, store)
        here = len(self.data.train)
        estimate = estimated(asking, online)
        views = min(1 + _rounds(math.ceil(here / asking.batch_size)), asking.views)
        known = CachedTeacher(online, (asking.batches(view) for view in range(views)), here, views)
        step = self.student(scheme, known)
        whole = self.samples / here
        sample_bytes = estimate.bytes / estimate.views / here
        return {
            "stored": self.steps * recipe.epochs * step,
            "store": {
                "views": estimate.views,
                "bytes": round(whole * estimate.bytes),
                "token_bytes": estimate.token_bytes,
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
        hardware = Hardware(fabric=fabric, compile=compile)
        options: dict[str, Any] = {"optimizer": optimizer, "hardware": hardware, "progress": False}

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
