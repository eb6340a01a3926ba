"""One training from its first batch to its files: what `fit` does once it knows what it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.batches.source import Source
from limbeck.engine.built import Built, build
from limbeck.engine.callbacks.checkpoints import Checkpoints
from limbeck.engine.callbacks.hooks import Callback, Callbacks, Training
from limbeck.engine.callbacks.metrics_file import MetricsFile
from limbeck.engine.callbacks.progress import Progress, tell
from limbeck.engine.callbacks.snapshots import Snapshots
from limbeck.engine.devices.compile_cache import PLACE
from limbeck.engine.devices.compiling import Choice, check_whole, choose_compile, compiled
from limbeck.engine.devices.fabric import AUTO, enough_memory, from_first
from limbeck.engine.devices.sharding import check_shared, is_sharding, whole
from limbeck.engine.first.balance import Pull, in_words
from limbeck.engine.first.compiled import compiled_wrongly
from limbeck.engine.first.prepared import Examined, Prepared, checked, prepared
from limbeck.engine.loop import Loop
from limbeck.engine.optimizers.groups import Grouped
from limbeck.engine.optimizers.named import MakeOptimizer
from limbeck.engine.optimizers.schedulers import AnySchedule, Scheduler
from limbeck.engine.saving.checkpoint import Checkpoint, Progressed, save_student
from limbeck.engine.settings import Settings, stopped
from limbeck.errors import RequestError, counted
from limbeck.models import Layout
from limbeck.models.foreign.hugging_face_lora import make_plain
from limbeck.teachers import Teacher
from limbeck.types import Batch


@dataclass(frozen=True)
class Begun:
    """A training that is built, and stands where it starts or resumes."""

    built: Built
    checkpoint: Checkpoint
    state: Progressed
    display: Progress


@dataclass(frozen=True)
class Work:
    """One training.

    Attributes:
        scheme: What is trained, as its user holds it.
        fabric: Devices and processes.
        settings: What is asked for.
        folder: Where its files go, or None.
        shown: Whether this process says what happens.
    """

    scheme: Scheme
    fabric: Fabric
    settings: Settings
    folder: Path | None
    shown: bool

    def check(self, compile: str | None) -> None:
        """Raise RequestError where the scheme and the mode of torch.compile do not fit the processes."""
        check_shared(self.scheme, self.fabric)
        if is_sharding(self.fabric):
            check_whole(compile)

    def tried(
        self, guide: Teacher | None, data: Examined, layout: str, *, measures: bool
    ) -> tuple[Prepared, Sequence[Pull]]:
        """Bring the scheme to its device and try a step; with the balance of its losses where that is measured."""
        window, epochs = self.settings.accumulate_steps, self.settings.epochs
        first = prepared(self.scheme, guide, data, self.fabric, layout, window, self.settings.seed)
        self._say([first.layout.reason])
        pulls = checked(self.scheme, guide, first, self.fabric, window, epochs if measures else None)
        self._say([in_words(pulls)] if pulls else [], first.notes if self.fabric.is_global_zero else [])
        return first, pulls

    def begun(
        self,
        first: Prepared,
        optimizer: MakeOptimizer | Grouped | Optimizer,
        schedule: AnySchedule | None,
        resume: bool,
        compile: str | None,
        *,
        validates: bool,
    ) -> Begun:
        """Build what is trained, bring it to where an interrupted training stood, and choose how it is compiled."""
        asked, steps = self.settings, len(first.source)
        length = asked.epochs, steps, asked.accumulate_steps
        built = build(self.scheme, self.fabric, optimizer, schedule, length, validates=validates)
        same = {"seed": asked.seed, "steps": steps, "accumulate_steps": asked.accumulate_steps}
        checkpoint = Checkpoint(
            self.folder, asked.saving.phase, same, self.fabric, built.scheme, built.optimizer, built.schedule
        )
        state = checkpoint.load() if resume else Progressed()
        reason = _choose_compile(state, compile, built.scheme, first.example, self.fabric, asked.epochs, steps)
        with enough_memory(asked.saving.phase, first.example.size, self.fabric.device):
            fault = compiled_wrongly(built.scheme, first, self.fabric, state.compile)
        if fault and (compile != AUTO or state.compile is None):  # the latter: the user compiled the student
            raise RequestError(_without_compile(fault, state.compile))
        if fault:
            state.compile, reason = None, f"not compiled: {fault}"
        rates = str(built.schedule) if isinstance(built.schedule, Scheduler) else ""
        self._say([self._beginning(first, state), rates, reason])
        return Begun(
            built, checkpoint, state, Progress(asked.saving.phase, asked.epochs, steps, self.shown, self.scheme.task)
        )

    def callbacks(self, begun: Begun, given: Sequence[Callback]) -> Callbacks:
        """The user's between limbeck's own: metrics file, display and the students of some epochs; the checkpoints."""
        metrics = MetricsFile(self.folder if self.fabric.is_global_zero else None)
        metrics.restart(self.settings.saving.phase, begun.state.records)
        student, about = begun.built.scheme.student, self.settings.saving.about
        snapshots = Snapshots(self.folder, self.settings.saving.save_every, student, about)
        checkpoints = Checkpoints(begun.checkpoint, begun.state, self.settings)
        return Callbacks([metrics, begun.display, snapshots], given, [checkpoints])

    def loop(
        self,
        begun: Begun,
        source: Source,
        guide: Teacher | None,
        callbacks: Callbacks,
        val: Iterable[Any] | None,
        judge: Teacher | None,
    ) -> Loop:
        """The loop over all epochs."""
        built, asked = begun.built, self.settings
        return Loop(
            fabric=self.fabric,
            scheme=built.scheme,
            model=built.model,
            optimizer=built.optimizer,
            stepper=built.stepper,
            schedule=built.schedule,
            source=source,
            teacher=guide,
            callbacks=callbacks,
            training=Training(
                asked.saving.phase, asked.epochs, len(source), built.scheme, built.optimizer, self.fabric.is_global_zero
            ),
            settings=asked,
            val=val,
            val_teacher=judge,
            shown=self.shown,
        )

    def train(self, begun: Begun, loop: Loop, laid: Layout, size: int) -> None:
        """Run the loop; bring what was trained, or the best of it, into the user's own modules; write its files."""
        state = begun.state
        memory = enough_memory(self.settings.saving.phase, size, self.fabric.device)
        with memory, laid.kept(), compiled(loop.scheme.student, state.compile, size), begun.display:
            loop.run(state)
        self.fabric.barrier()
        if loop.scheme is not self.scheme:
            self.scheme.load_state_dict(whole(loop.scheme.state_dict()))
        if self.settings.keep == "best":
            begun.checkpoint.load_best(self.scheme)
        student = self.scheme.student.eval()
        make_plain(student)
        if self.folder and begun.checkpoint.writes:
            how = {**stopped(state.epoch, self.settings.epochs), "compile": state.compile, "layout": laid.name}
            took = {"training": {"epochs": state.epoch, "seconds": round(state.seconds, 3), **how}}
            save_student(self.folder, self.settings.saving.phase, student, {**self.settings.saving.about, **took})
        loop.training.scheme = self.scheme
        loop.callbacks.call("fit_end", loop.training)

    def _beginning(self, first: Prepared, state: Progressed) -> str:
        """What is about to happen, in a line."""
        steps, size, precision = len(first.source), first.example.size, self.fabric.strategy.precision.precision
        form = [precision, first.layout.name or "", f"compiled ({state.compile})" if state.compile else ""]
        several = f"{self.fabric.world_size} processes on " if self.fabric.world_size > 1 else ""
        resumed = f", resumed in epoch {state.epoch + 1}" if state.epoch or state.step else ""
        length = counted(self.settings.epochs, "epoch")
        return (
            f"{length} of {counted(steps, 'step')} of {counted(size, 'sample')}{resumed}; "
            f"{several}{self.fabric.device.type}, {', '.join(filter(None, form))}"
        )

    def _say(self, shown: Sequence[str], always: Sequence[str] = ()) -> None:
        for line in filter(None, chain(shown if self.shown else (), always)):
            tell(f"{self.settings.saving.phase}: {line}")


def _without_compile(fault: str, mode: str | None) -> str:
    """What torch.compile does wrong, and what to do."""
    without = "compile: null" if mode else "a student that is not compiled"
    return f"{fault}; {without} does without, or set {PLACE} to an empty folder, free of other processors' code"


def _choose_compile(
    state: Progressed, compile: str | None, scheme: Scheme, example: Batch, fabric: Fabric, epochs: int, steps: int
) -> str:
    """Set torch.compile's mode in `state`, by a trial where that is to be chosen; why it is so, or ""."""
    choice = Choice(state.compile if compile == AUTO else compile)
    if choice.mode == AUTO:
        left = (epochs - state.epoch) * steps - state.step
        look = partial(choose_compile, scheme, example.to(fabric.device), fabric, left)
        choice = from_first(fabric, look)
    state.compile, state.seconds = choice.mode, state.seconds + choice.seconds
    return choice.reason
