"""Hooks into a training: code of the user's own, and limbeck's display, metrics file, snapshots and loggers."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_fabric.loggers.logger import Logger
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.settings import check_count
from limbeck.engine.totals import Totals
from limbeck.errors import RequestError, RunError, reason_of, shown

HOOKS = ("fit_start", "step_end", "epoch_end", "validation_end", "fit_end")
FAR, NEAR = 0.7, 0.85
"""From this likeness on, of 1 for the same, a method's name is taken for a hook: one in on_, and another."""


@dataclass
class Training:
    """What a hook is given: one training, as it stands at that moment.

    Attributes:
        phase: Name of the training.
        epochs: How many epochs it has.
        steps: How many batches an epoch has.
        scheme: What is trained, such as a `Distiller`; `scheme.student` is the student. In `fit_end` it is the student
            that `fit` returns, in eval mode.
        optimizer: What trains it; with a `schedule` of limbeck's each step sets the rate from its `initial_lr`.
        first: Whether this is the first of several processes, the only one that should print or write files. True
            where there is one process.
        epoch: Number of the epoch that is running or has just ended, from 1 on; before the first one, how many a
            resumed training has behind it.
        step: Batches of this epoch that are trained.
        taken: How many of them the last step of the optimizer took.
        record: The figures of the last finished epoch, as in `Run.metrics`, or None; in `validation_end` and
            `epoch_end` those of the epoch that has just ended.
        records: Those of all finished epochs, those before an interruption among them.
    """

    phase: str
    epochs: int
    steps: int
    scheme: Scheme
    optimizer: Optimizer | None = None
    first: bool = True
    epoch: int = 0
    step: int = 0
    taken: int = 0
    record: Mapping[str, Any] | None = None
    records: Sequence[Mapping[str, Any]] = ()
    stopping: bool = False
    look: Callable[[], Totals] = field(default=Totals, repr=False)

    def means(self) -> dict[str, float]:
        """The loss, its parts and the task's quick score, as means over this epoch's samples so far, in this process.

        It waits for the device: call it every so many steps, not at each one.
        """
        return self.look().means()

    def due(self, every: int | None) -> bool:
        """Whether what is done every so many batches of an epoch is due now; at the epoch's end it never is."""
        before = self.step - self.taken
        return every is not None and self.step // every > before // every and self.step < self.steps

    def stop(self) -> None:
        """End the training after this epoch (in `fit_start`: before the first), in all processes, whoever calls it."""
        self.stopping = True


class Callback:
    """Code that is called while `fit` trains: `fit(…, callbacks=[MyCallback()])`. Override the hooks that you need.

    Each hook is called in every process; write files where `training.first` is True. A resumed training calls
    `fit_start` with `training.records` of the finished epochs, and resumes the epoch that was interrupted: its
    hooks may be called a second time for it. A training that a callback has stopped stays stopped when it is resumed.
    An exception ends the training, and is told with the callback's name. A callback may put the student in eval mode;
    random numbers that `step_end` draws change the rest of the epoch. What `validation_end` adds to `training.record`
    is in metrics.jsonl and `Run.metrics`; what `epoch_end` adds, in the latter alone.

    >>> class Stop(Callback):
    ...     def epoch_end(self, training: Training) -> None:
    ...         if training.record["loss"] < 0.1:
    ...             training.stop()

    Attributes:
        needs_validation: Whether it reads validation figures; `fit` then refuses a training without validation data.
    """

    needs_validation: bool = False

    def fit_start(self, training: Training) -> None:
        """Before the first step, also where a resumed training has no step left."""

    def step_end(self, training: Training) -> None:
        """After each step of the optimizer, which with `accumulate_steps` takes several batches, and its validation."""

    def validation_end(self, training: Training) -> None:
        """After a validation; by `validate_steps` also within an epoch, where the record has a `step`."""

    def epoch_end(self, training: Training) -> None:
        """After an epoch and its validation, before its checkpoint."""

    def fit_end(self, training: Training) -> None:
        """After the last epoch, with the student as `fit` returns it and as its files are written."""


class Callbacks:
    """The callbacks of one training; a hook that nobody overrides costs nothing.

    Args:
        own: limbeck's, whose errors are told as they are.
        given: The user's, called after them in their order.
        last: limbeck's too, called after the user's.
    """

    def __init__(self, own: Sequence[Callback], given: Sequence[Callback], last: Sequence[Callback] = ()) -> None:
        self._own, self._given, self._last = (
            {hook: [one for one in some if _overrides(one, hook)] for hook in HOOKS} for some in (own, given, last)
        )

    def call(self, hook: str, training: Training) -> None:
        """Call this hook of every callback that has it.

        Raises:
            RunError: One of the user's raises; the error names it.
        """
        for own in self._own[hook]:
            getattr(own, hook)(training)
        for given in self._given[hook]:
            try:
                getattr(given, hook)(training)
            except Exception as error:
                raise RunError(
                    f"{training.phase}: the callback {type(given).__name__} fails in {hook}, epoch {training.epoch}, "
                    f"step {training.step}: {type(error).__name__}: {reason_of(error)}"
                ) from error
            if hook != "fit_end" and not training.scheme.student.training:
                training.scheme.train()
        for last in self._last[hook]:
            getattr(last, hook)(training)


class LogTo(Callback):
    """Gives figures to Lightning loggers: `callbacks=[LogTo(TensorBoardLogger("logs"))]`.

    Each epoch's record is logged by the epoch's number, as PHASE/NAME.

    Args:
        loggers: Such as TensorBoardLogger or CSVLogger.
        every_steps: Log the epoch's means so far and the learning rate every so many batches too, by the batches
            trained in all, as PHASE/step/NAME; None for epochs alone.

    Raises:
        RequestError: What is given is no logger.
    """

    def __init__(self, *loggers: Logger, every_steps: int | None = None) -> None:
        check_count("every_steps", every_steps, or_none=True)
        for one in loggers:
            if not callable(getattr(one, "log_metrics", None)):
                raise RequestError(f'LogTo takes loggers, such as LogTo(TensorBoardLogger("logs")), not {shown(one)}')
        self.loggers, self.every_steps = loggers, every_steps
        self._logged = 0

    def fit_start(self, training: Training) -> None:
        self._reached(training.epoch * training.steps + training.step)

    def step_end(self, training: Training) -> None:
        done = (training.epoch - 1) * training.steps + training.step
        if not self.loggers or not self._reached(done):
            return
        rate = {} if training.optimizer is None else {"lr": float(training.optimizer.param_groups[0]["lr"])}
        self._log({f"{training.phase}/step/{name}": one for name, one in {**training.means(), **rate}.items()}, done)

    def epoch_end(self, training: Training) -> None:
        record = training.record or {}
        scalars = {f"{training.phase}/{name}": one for name, one in record.items() if name not in ("phase", "epoch")}
        self._log(scalars, training.epoch)
        for logger in self.loggers:
            logger.save()  # what it has not written yet, such as rows of a table

    def _reached(self, done: int) -> bool:
        """Whether so many batches have reached the next of every so many, since it was last asked."""
        before, self._logged = self._logged, done // self.every_steps if self.every_steps else 0
        return self._logged != before

    def _log(self, scalars: dict[str, float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics(scalars, step)


def check_callbacks(given: object, *, validates: bool) -> None:
    """Raise RequestError for what is no list of callbacks, hooks that nothing calls, and a missing validation."""
    if not isinstance(given, list | tuple):
        raise RequestError(f"callbacks is a list of limbeck.Callback, not {shown(given)}")
    for one in given:
        if isinstance(one, type):
            raise RequestError(f"callbacks takes objects, and {one.__name__} is a class: give {one.__name__}()")
        if not isinstance(one, Callback):
            raise RequestError(
                f"{shown(one)} is no limbeck.Callback; derive its class from it, and override any of {', '.join(HOOKS)}"
            )
        if one.needs_validation and not validates:
            raise RequestError(
                f"{type(one).__name__} looks at the validation: give validation data (data.validation in a recipe)"
            )
        _check_names(one)
        for hook in HOOKS:
            if _overrides(one, hook):
                _check_signature(one, hook)


def _check_names(one: Callback) -> None:
    """Raise RequestError for a method that is nearly called like a hook."""
    for name in dir(type(one)):
        if name.startswith("_") or name in HOOKS or not callable(getattr(type(one), name)):
            continue
        foreign = name.startswith("on_")  # as other libraries call their hooks
        close = difflib.get_close_matches(name.removeprefix("on_"), HOOKS, n=1, cutoff=FAR if foreign else NEAR)
        if close or foreign:
            hooks = f"the hook is {close[0]}" if close else f"the hooks are {', '.join(HOOKS)}"
            raise RequestError(
                f"{type(one).__name__}.{name} is never called: {hooks}; if it is meant as no hook, give it another name"
            )


def _check_signature(one: Callback, hook: str) -> None:
    """Raise RequestError for a hook that does not take the training."""
    try:
        signature = inspect.signature(getattr(one, hook))
    except (TypeError, ValueError):  # of what is not written in Python it is not known
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise RequestError(
            f"{type(one).__name__}.{hook} takes ({', '.join(signature.parameters)}), and a hook takes the training: "
            f"def {hook}(self, training)"
        ) from error


def _overrides(one: Callback, hook: str) -> bool:
    return getattr(type(one), hook) is not getattr(Callback, hook) or hook in vars(one)
