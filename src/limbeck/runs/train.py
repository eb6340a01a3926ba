"""Training and testing as a recipe says: what a single run and a comparison share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from limbeck.data import DataSet, Loader, make_loader
from limbeck.data.splits import Split
from limbeck.distillers import Scheme
from limbeck.engine import Hardware, Saving, fit
from limbeck.engine.batches.source import Source
from limbeck.engine.callbacks.hooks import Callback
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.fabric import AUTO
from limbeck.engine.each_minute import Passing
from limbeck.engine.first.answers import check_steady
from limbeck.engine.first.batch import settle
from limbeck.engine.saving.checkpoint import checkpoint_phase, restore_student
from limbeck.engine.settings import stopped
from limbeck.engine.validation import Hear
from limbeck.measure.evaluation import evaluate, evaluate_each, evaluate_teacher
from limbeck.models import move
from limbeck.recipes import schema
from limbeck.recipes.methods import Places
from limbeck.runs import components
from limbeck.runs.entry import entry_of
from limbeck.runs.machine import Machine
from limbeck.runs.outputs.asking import Asking
from limbeck.runs.outputs.given_teacher import outputs_of
from limbeck.runs.outputs.keeping import MEMORY_BYTES, Kept, keep
from limbeck.runs.outputs.ledger import Ledger
from limbeck.runs.teachers import Candidate
from limbeck.taps import evaluating
from limbeck.teachers import CachedTeacher, StoredTeacher, Teacher, memory_need
from limbeck.types import Inputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

HELD_OUTPUTS = 2
"""Teacher outputs held at once: those that many methods share, such as logits, and those of one method alone."""


@dataclass(frozen=True)
class Job:
    """One recipe on one data set, in one folder, on one machine."""

    recipe: schema.Recipe
    data: DataSet
    machine: Machine
    fabric: Fabric
    out: Path
    resume: bool = False
    compile: str | None = AUTO
    """What `compile: auto` comes to for all students; "auto" leaves that to each training."""
    trainings: int = 1
    """How many students have the same teacher."""
    memory: dict[str, Kept] = field(default_factory=dict)
    """The teacher outputs that were used last, by the teacher's fingerprint; a comparison's jobs share it."""
    judges: dict[str, Teacher] = field(default_factory=dict)
    """What teachers say about the test set, or the validation's, by their fingerprints; likewise shared."""
    measured: set[str] = field(default_factory=set)
    """Trainings whose losses' balance was said; a comparison's jobs share it."""
    outputs: Ledger = field(default_factory=Ledger)
    """Where the teacher outputs came from, as recorded and kept by a resumed run; a comparison's jobs share it."""
    shared: Path | None = None
    """Where processes that train side by side share teacher outputs (`limbeck.runs.outputs.shared`)."""
    callbacks: Sequence[Callback] = ()
    """What looks into the trainings."""

    def train(
        self,
        scheme: Scheme,
        phase: str,
        teacher: Teacher | None = None,
        online: Teacher | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Train a student; with `resume`, from where it stood. Gives its epochs and seconds.

        Without labels the held-out figures are beside `online`, the teacher that can be asked about any sample. `about`
        is what the student's description says besides.
        """
        finished = restore_student(scheme.student, self.fabric, lambda: self._finished(phase))
        if finished is not None:
            move(scheme, self.fabric.device)
            return finished[1]
        recipe, data = self.recipe, self.data
        run = fit(
            scheme,
            self.training_loader(pairs=getattr(scheme, "other_view", False)),
            teacher=teacher,
            val_teacher=None if scheme.task.labelled else self._beside(online),
            val=self.held_out(data.validation) if data.validation else None,
            epochs=recipe.epochs,
            steps_per_epoch=recipe.steps_per_epoch,
            optimizer=components.optimizer(recipe.optimizer),
            schedule=components.schedule(recipe.schedule, recipe.epochs),
            accumulate_steps=recipe.accumulate_steps,
            max_grad_norm=recipe.max_grad_norm,
            keep=recipe.keep,
            validate_steps=recipe.validate_steps,
            hardware=Hardware(
                fabric=self.fabric,
                compile=self.compile if recipe.compile == AUTO else recipe.compile,
                layout=recipe.layout,
            ),
            out=self.out,
            resume=self.resume,
            saving=Saving(
                save_every=recipe.save_every,
                phase=phase,
                about={**components.about(recipe.student, data), "task": scheme.task.name, **about},
            ),
            seed=recipe.seed,
            callbacks=[
                *components.early_stopping(recipe.early_stopping),
                *self.machine.logging(),
                *self.callbacks,
            ],
            progress=self.machine.progress,
            measure_balance=self._measures_balance(scheme, phase),
        )
        epochs = {"epochs": len(run.metrics), **stopped(len(run.metrics), recipe.epochs)}
        return {**epochs, "seconds": round(run.seconds, 3), "compile": run.compile, "layout": run.layout}

    def _measures_balance(self, scheme: Scheme, phase: str) -> bool:
        """Whether the balance of these losses was not measured yet, for another seed of a comparison."""
        terms = [repr(one) for one in getattr(scheme, "terms", {}).values()]
        recipe = self.recipe.model_dump(exclude={"seed": True, "distill": {"terms"}})  # of which some hold networks
        key = f"{phase} {terms} {recipe}"
        before = key in self.measured
        self.measured.add(key)
        return not before

    def training_loader(self, pairs: bool = False) -> Loader:
        """The training samples, in the order of the recipe's seed; in two views each, in pairs."""
        recipe, data = self.recipe, self.data
        return make_loader(
            data.train,
            recipe.data.batch_size,
            shuffle=True,
            drop_last=recipe.data.drop_last,
            seed=recipe.seed,
            workers=recipe.data.workers,
            views=components.views(recipe.data, data),
            pairs=pairs,
            weights=components.sampling(recipe.data, data),
            **self.machine.place(self.fabric),
        )

    def precompute(self, teacher: Teacher, found: Sequence[Candidate]) -> tuple[Teacher, float]:
        """The teacher that these candidates are, its outputs kept if that pays; and the seconds that asking took."""
        if isinstance(teacher, StoredTeacher):  # of whom nothing else is there
            self.outputs.note(teacher.fingerprint, outputs_of(teacher))
            return teacher, 0.0
        store = found[0].spec.store if found else schema.Store()
        asking = Asking(self.recipe, self.data, self.fabric, store, shown=self._shown)
        key = f"{teacher.fingerprint} in {asking.views} views"
        kept = self.memory.pop(key, None)
        while len(self.memory) >= HELD_OUTPUTS:
            self.memory.pop(next(iter(self.memory)))
        if kept is None:
            before = self.outputs.get(key)
            begin = functools.partial(self.outputs.note, key)
            kept = keep(asking, teacher, self.trainings, before, begin, self.shared)
            if kept.outputs != before:
                self.outputs.note(key, kept.outputs)
            lines = [] if kept.where == "online" else check_steady(teacher, next(iter(asking.batches(0))))
            if self._shown:
                for line in (kept.reason, *lines):
                    tell(line)
        self.memory[key] = kept
        return kept.teacher, kept.seconds

    def test(self, scheme: Scheme, teacher: Teacher | None = None, hear: Hear | None = None) -> dict[str, Any]:
        """The one look at the test set: figures under the names that result.json uses, and each exit's or peer's.

        `hear` gets the outputs and targets themselves (`evaluate_each`).
        """
        move(scheme, self.fabric.device)
        loader = self._passing(self.data.test, "test")
        judge = self._judge(teacher, "test") if teacher else None
        if scheme.classes is None:  # this process did not train it, and does not know yet how it reads inputs
            settle(scheme, Source(loader, self.fabric.device).first(), self.recipe.seed)
        with evaluating(scheme):
            found = evaluate_each(scheme, loader, device=self.fabric.device, teacher=judge, hear=hear)
        each = {f"test_{one.monitor}/{name}": one.score for name, one in found.items() if len(found) > 1}
        return entry_of(found[scheme.chosen]) | each

    def test_function(
        self, predict: Callable[[Inputs], Tensor], teacher: Teacher | None = None, hear: Hear | None = None
    ) -> dict[str, Any]:
        """The same of a function from inputs to outputs, such as a file in another runtime."""
        loader, task = self._passing(self.data.test, "test"), components.task(self.recipe, self.data)
        judge = self._judge(teacher, "test") if teacher else None
        return entry_of(evaluate(predict, loader, task=task, device=self.fabric.device, teacher=judge, hear=hear))

    def test_teacher(self, teacher: Teacher) -> dict[str, Any]:
        """The test figures of a teacher, such as an ensemble."""
        loader, task = self._passing(self.data.test, "test"), components.task(self.recipe, self.data)
        return entry_of(evaluate_teacher(self._judge(teacher, "test"), loader, task=task, device=self.fabric.device))

    def held_out(self, split: Split) -> Loader:
        """A split's samples in order, for tests."""
        return make_loader(
            split,
            components.held_out_batch(self.recipe, self.data),
            device=self.fabric.device,
            workers=self.recipe.data.workers,
        )

    @property
    def _shown(self) -> bool:
        """Whether this process says what happens."""
        return self.machine.progress and self.fabric.is_global_zero

    def _passing(self, split: Split, what: str) -> Passing:
        return Passing(self.held_out(split), what, len(split), self._shown)

    def _finished(self, phase: str) -> tuple[Path, str] | None:
        """Where a student lies that this run has done with before it was resumed."""
        # What is trained beside the student is in its checkpoint alone, until the next phase writes its own.
        done = self.resume and (self.out / f"{phase}.json").exists() and checkpoint_phase(self.out) != phase
        return (self.out, phase) if done else None

    def _beside(self, online: Teacher | None) -> Teacher | None:
        """Who is asked about the validation data; nobody where the training samples' outputs are all that there is."""
        return None if online is None or isinstance(online, StoredTeacher) else self._judge(online, "validation")

    def _judge(self, teacher: Teacher, part: str) -> Teacher:
        """The teacher, its outputs for the validation or test set precomputed for every look at it, by all the students
        that are compared, but for those that would fill the memory, as language models' do.
        """
        split, key = dict(self.data.parts).get(part), f"{part} {teacher.fingerprint}"
        if split is None:
            return teacher
        if key not in self.judges:
            one = next(iter(make_loader(split, 1, device=self.fabric.device)))
            if memory_need(teacher, one, len(split)) > MEMORY_BYTES:
                return teacher
            asked = self._passing(split, f"teacher on the {part} set")
            self.judges[key] = CachedTeacher(teacher, [asked], len(split), features=False)
        return self.judges[key]


def places(recipe: schema.Recipe, student: nn.Module, found: Sequence[Candidate], data: DataSet) -> Places:
    """Where the recipe's networks can be compared; of several teachers the first one counts.

    In the place of a teacher that is not there stands the student.
    """
    if not found:
        shape, names = components.shape(recipe.student, data), (recipe.student.model, "stored")
        return Places(student, student, shape, len(data.train), shape, names)
    teacher = found[0]
    return Places(
        student,
        teacher.module,
        components.shape(recipe.student, data),
        len(data.train),
        components.shape(teacher.spec, data),
        (recipe.student.model, teacher.spec.model),
    )
