"""The training loop: the only one in limbeck, for teachers, baselines and every way of distilling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from operator import length_hint
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.batches.generators import Generators
from limbeck.engine.batches.held_out import HeldOut
from limbeck.engine.batches.source import Source
from limbeck.engine.batches.together import asked
from limbeck.engine.callbacks.hooks import Callbacks, Training
from limbeck.engine.callbacks.progress import tell
from limbeck.engine.devices.fabric import Autocast, autocast, from_all
from limbeck.engine.devices.sharding import share_buffers
from limbeck.engine.each_minute import EachMinute
from limbeck.engine.meter import Meter
from limbeck.engine.optimizers.named import Schedule
from limbeck.engine.optimizers.schedulers import Scheduler
from limbeck.engine.optimizers.stepper import Stepper
from limbeck.engine.saving.checkpoint import Progressed
from limbeck.engine.settings import Settings
from limbeck.engine.step_weights import step_weights
from limbeck.engine.totals import Totals
from limbeck.engine.validation import figures, predictions
from limbeck.errors import RunError, reason_of
from limbeck.seeds import derive, restore_random_state, same_draws, seed_everything
from limbeck.taps import evaluating
from limbeck.tasks import Task
from limbeck.teachers import Teacher
from limbeck.types import Batch, Step, TeacherOutput


@dataclass(kw_only=True)
class Loop:
    """One training, with everything that its epochs share.

    `model` and `stepper` are Fabric's wrappers around `scheme` and `optimizer`; the rest is as `fit` has it.
    """

    fabric: Fabric
    scheme: Scheme
    model: Any
    optimizer: Optimizer
    stepper: Any
    source: Source
    teacher: Teacher | None
    callbacks: Callbacks
    training: Training
    schedule: Schedule | Scheduler | None
    settings: Settings
    val: Iterable[Any] | None
    val_teacher: Teacher | None
    shown: bool
    said_short: bool = False

    def run(self, state: Progressed) -> None:
        """Train from where `state` stands to the end of the last epoch."""
        epochs = self.settings.epochs
        self.scheme.train()
        self.forget_gradients()  # those that an earlier backward pass left
        generators = Generators([self.source.loader, self.val], self.fabric)
        state.drawing, reason = generators.resume(state.drawing, state.epoch)
        if reason and self.fabric.is_global_zero and state.epoch < epochs:
            tell(f"{self.phase}: order and augmentation may differ from an uninterrupted run's: {reason}")
        self.training.step = state.step
        self._call("fit_start", state)
        while state.epoch < epochs and not state.stopped:
            record = self.epoch(state)
            share_buffers(self.scheme, self.fabric)
            if self.held_out is not None:
                self._validated(record, self.held_out)
            if isinstance(self.schedule, Scheduler):
                self.schedule.after_epoch(record, self.task)
            state.finish_epoch(record)
            state.drawing = generators.drawing()
            self._call("epoch_end", state)

    @property
    def task(self) -> Task:
        """What is learned."""
        return self.scheme.task

    @property
    def phase(self) -> str:
        """Name of the training."""
        return self.settings.saving.phase

    def _call(self, hook: str, state: Progressed) -> None:
        """Call a hook between two epochs."""
        training = self.training
        training.epoch, training.records = state.epoch, state.records
        training.record = state.records[-1] if state.records else None
        self.callbacks.call(hook, training)

    @cached_property
    def held_out(self) -> HeldOut | None:
        """The validation data, shared out over the processes."""
        return None if self.val is None else HeldOut(self.val, self.fabric.device, self.fabric, self.task.batch)

    @cached_property
    def plain(self) -> bool:
        """Whether there is one process, in fp32 or under bf16 autocast.

        Fabric's wrappers let processes talk and scale fp16's gradients. Where there is nothing of both to do, they
        would still walk through every record, at a tenth of a small step's time.
        """
        precision = self.fabric.strategy.precision
        unscaled = precision.precision == "32-true" or (isinstance(precision, Autocast) and precision.scaler is None)
        return self.fabric.world_size == 1 and unscaled

    @cached_property
    def rates(self) -> list[float]:
        """Each group's learning rate before the schedule."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    @cached_property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @cached_property
    def forward(self) -> Callable[[Batch, TeacherOutput | None], Step]:
        """The scheme's forward pass."""
        return autocast(self.scheme, self.fabric) if self.plain else self.model

    @cached_property
    def backward(self) -> Callable[[Tensor], None]:
        """From a loss to the gradients."""
        return torch.Tensor.backward if self.plain else self.fabric.backward

    @cached_property
    def advance(self) -> Callable[[], object]:
        """From the gradients to the next weights."""
        return Stepper(self.optimizer) if self.plain else self.stepper.step

    def epoch(self, state: Progressed) -> dict[str, Any]:
        """Train through the data once, from where `state` stands; the epoch's record."""
        began = time.perf_counter() - state.seconds
        meter = Meter(self.task, self.phase, state.epoch, state.step, state.sums)
        training = self.training
        training.epoch, training.step, training.look = state.epoch + 1, state.step, meter.look
        self.scheme.at(state.epoch)
        rate = self.optimizer.param_groups[0]["lr"]
        for window in self.source.windows(self._batches(state)):
            self._set_rates(state)
            try:
                self._update(window, meter)
            except Exception as error:
                self._blame(window, state, error)
                raise
            rate = self.optimizer.param_groups[0]["lr"]
            if isinstance(self.schedule, Scheduler):
                self.schedule.after_step()
            training.taken = len(window)
            training.step = state.step = state.step + len(window)
            if self.held_out is not None and training.due(self.settings.validate_steps):
                self._validate_within(meter, self.held_out, state)
            state.seconds = time.perf_counter() - began
            self.callbacks.call("step_end", training)
        if not state.step:
            raise RunError(f"{self.phase}: {self.source.nothing()}")
        self._say_if_short(state)
        totals = meter.look()  # which waits for the device
        state.seconds = time.perf_counter() - began
        everybodys = Totals()
        everybodys.merge(from_all(self.fabric, totals.sums))
        means = everybodys.means()
        numbers = {"epoch": state.epoch + 1, **means, "lr": float(rate), "seconds": round(state.seconds, 3)}
        return {"phase": self.phase, **numbers}

    def _update(self, window: Sequence[Batch], meter: Meter) -> None:
        """One step of the optimizer on the mean loss over all samples of the window, or all that the task counts."""
        window = asked(self.scheme, window, self.fabric)
        weights = step_weights(window, self.task, self.fabric)
        for number, (batch, weight) in enumerate(zip(window, weights, strict=True), start=1):
            teacher_output = self.teacher(batch) if self.teacher else None
            with self.fabric.no_backward_sync(self.model) if number < len(window) else nullcontext():
                step = self.forward(batch, teacher_output)
                self.backward(step.loss if weight is None else step.loss * weight)
            meter.add(step, batch)
        if self.settings.max_grad_norm is not None:
            self._clip(self.settings.max_grad_norm)
        self.advance()
        self.forget_gradients()

    def _blame(self, window: Sequence[Batch], state: Progressed, error: Exception) -> None:
        """Raise RunError where a batch of another shape than the first one is why a step has failed."""
        unlike = self.source.unlike(window)
        if unlike and not isinstance(error, RunError | torch.OutOfMemoryError):
            where = f"batch {state.step + 1} of epoch {state.epoch + 1}"
            raise RunError(f"{self.phase}: {where} cannot be trained on: {unlike}; {reason_of(error)}") from error

    def _say_if_short(self, state: Progressed) -> None:
        """Say once that an epoch has fewer batches than were announced."""
        short = self.source.short(state.step)
        if short and not self.said_short and self.fabric.is_global_zero:
            tell(f"{self.phase}: {short}")
        self.said_short |= bool(short)

    def forget_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None

    def _clip(self, largest: float) -> None:
        """Bound the gradient's norm; what is not finite is left to the meter, which names the term."""
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        if scaler is None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=largest, error_if_nonfinite=False)
        else:  # Fabric would refuse a fused optimizer, which the scaler serves; it skips what is not finite
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained, largest)

    def _validate_within(self, meter: Meter, held_out: HeldOut, state: Progressed) -> None:
        """Validate in the middle of an epoch, whose random numbers stay as they would be without."""
        last = self.training.record
        with same_draws():
            share_buffers(self.scheme, self.fabric)
            self._validated({**meter.look().means(), "epoch": state.epoch + 1, "step": state.step}, held_out)
        self.training.record = last

    def _validated(self, record: dict[str, Any], held_out: HeldOut) -> None:
        """Add the validation's figures to a record."""
        record |= self._validate(held_out)
        self.training.record = record
        self.callbacks.call("validation_end", self.training)

    def _validate(self, held_out: HeldOut) -> dict[str, float]:
        """The figures of the whole, the same in all processes: what is kept by them is one decision."""
        scheme, monitor = self.scheme, self.task.monitor
        waiting = EachMinute(f"{self.phase}: validation", length_hint(held_out.loader), self.shown, "batches")

        def predict(batch: Batch) -> Mapping[str, Tensor]:
            found = predictions(scheme, batch)
            waiting.passed(1)
            return found

        with evaluating(scheme):
            found = figures(predict, held_out, self.task, self.val_teacher)
        record = {f"val_{name}": value for name, value in found[scheme.chosen].items() if name != "samples"}
        if f"val_{monitor}" not in record:
            raise RunError(
                f"{self.phase}: {monitor}, which selects, has no value on the validation data; it knows "
                f"{', '.join(found[scheme.chosen])}"
            )
        others = {f"val_{monitor}/{name}": one[monitor] for name, one in found.items() if len(found) > 1}
        return record | others

    def _batches(self, state: Progressed) -> Iterator[Batch]:
        seed_everything(derive(self.settings.seed, "epoch", state.epoch, self.fabric.global_rank))
        self.source.set_epoch(state.epoch)
        batches = self.source.starting_at(state.step)
        if state.rng:
            restore_random_state(state.rng)
        return batches

    def _set_rates(self, state: Progressed) -> None:
        if self.schedule is not None and not isinstance(self.schedule, Scheduler):
            factor = self.schedule(state.epoch + state.step / len(self.source))
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
