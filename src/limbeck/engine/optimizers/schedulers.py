"""Schedulers of torch.optim.lr_scheduler, stepped as their users step them, and resumed with the training."""

from __future__ import annotations

import math
import numbers
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from limbeck.engine.optimizers.named import Schedule, plain_optimizer
from limbeck.errors import RequestError, as_request
from limbeck.tasks import Task

MakeScheduler = Callable[[Optimizer], LRScheduler]
LENGTHS = ("total_steps", "T_max", "total_iters")
"""What schedulers call their length, in whatever they count."""
_PER_STEP = ("transformers", "diffusers")
"""Packages whose functions of a LambdaLR count steps."""


@dataclass(frozen=True)
class EveryStep:
    """A scheduler, or a function of the optimizer that makes one, to be stepped after each step of the optimizer."""

    scheduler: LRScheduler | MakeScheduler


AnySchedule = Schedule | LRScheduler | MakeScheduler | EveryStep
"""limbeck's own schedule (a factor by time in epochs), or one that torch's users have."""


class Scheduler:
    """A scheduler in a training: a torch one, or one of timm's, which counts both epochs and steps.

    Args:
        given: The scheduler, made on the optimizer that is trained.
        per_step: Whether it is stepped after each step of the optimizer, and not after each epoch.
        fabric: Its first process's figures count for a scheduler that follows the validation.
    """

    def __init__(self, given: Any, per_step: bool, fabric: Fabric) -> None:
        self.given, self.per_step, self.fabric = given, per_step, fabric
        self.steps = 0

    def __str__(self) -> str:
        return f"{type(self.given).__name__} is stepped after each {'step' if self.per_step else 'epoch'}"

    def after_step(self) -> None:
        """Go on after a step of the optimizer."""
        self.steps += 1
        with _stepping(self.given):
            if _is_timm(self.given):
                self.given.step_update(num_updates=self.steps)
            elif self.per_step:
                self.given.step()

    def after_epoch(self, record: Mapping[str, Any], task: Task) -> None:
        """Go on after an epoch.

        Args:
            record: The epoch's figures, the validation's among them.
            task: Whose monitor is followed.

        Raises:
            RequestError: A plateau follows a figure in the wrong direction.
        """
        with _stepping(self.given):
            if _is_timm(self.given):
                self.given.step(record["epoch"], self.fabric.broadcast(record.get(f"val_{task.monitor}")))
            elif isinstance(self.given, ReduceLROnPlateau):
                self.given.step(self.fabric.broadcast(record[_followed(self.given, task)]))
            elif not self.per_step:
                self.given.step()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs: numbers and words, no functions."""
        values = _without_objects(self.given.state_dict())
        return {"kind": type(self.given).__name__, "per_step": self.per_step, "steps": self.steps, "values": values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave.

        Raises:
            RequestError: It is another scheduler's.
        """
        own = self.state()
        for name in ("kind", "per_step"):
            if state[name] != own[name]:
                raise RequestError(f"the checkpoint's scheduler has {name} {state[name]}, and this run's {own[name]}")
        self.steps = state["steps"]
        self.given.load_state_dict(dict(state["values"]))


def taken_schedule(
    given: AnySchedule | None, optimizer: Optimizer, fabric: Fabric, *, epochs: int, steps: int, validates: bool
) -> Schedule | Scheduler | None:
    """A pure function of time as it is; of anything that torch's users have, what is stepped beside the optimizer.

    A scheduler is stepped after each epoch. Those that count steps are stepped after each step: OneCycleLR, CyclicLR,
    schedules of transformers, any whose length is exactly the training's number of steps, and those in `EveryStep`.

    Args:
        given: As `fit` takes it.
        optimizer: What is trained.
        fabric: The processes.
        epochs: Length of the training.
        steps: Its steps of the optimizer in all.
        validates: Whether there is a validation.

    Raises:
        RequestError: It is nothing of the kind, is bound to another optimizer, cannot be made, needs a validation that
            there is not, or ends before the training does.
    """
    counts = isinstance(given, EveryStep)
    wanted: Any = given.scheduler if isinstance(given, EveryStep) else given
    if wanted is None or (not counts and _gives_factor(wanted)):
        pure: Schedule | None = wanted
        return pure
    made = wanted if _is_scheduler(wanted) else _made(wanted, optimizer)
    if plain_optimizer(made.optimizer) is not optimizer:
        raise RequestError(
            "the scheduler is bound to another optimizer than the one that is trained: give fit that optimizer, or the "
            "scheduler as a function of it, such as partial(CosineAnnealingLR, T_max=10)"
        )
    if isinstance(made, ReduceLROnPlateau):
        if counts or not validates:
            raise RequestError("ReduceLROnPlateau follows the validation after each epoch: give fit val=, and it alone")
        return Scheduler(made, False, fabric)
    per_step = counts or _counts_steps(made, epochs, steps)
    if isinstance(made, OneCycleLR) and made.last_epoch + (steps if per_step else epochs) > made.total_steps:
        raise RequestError(
            f"OneCycleLR was made for {made.total_steps} steps, and this training takes {steps} in {epochs} epochs; "
            f"make it with total_steps={steps}"
        )
    return Scheduler(made, per_step, fabric)


def steps_in_all(epochs: int, batches: int, accumulate_steps: int) -> int:
    """Steps of the optimizer in a training of so many batches an epoch."""
    return epochs * math.ceil(batches / accumulate_steps)


def _gives_factor(given: Any) -> bool:
    """Whether this is a function of time: one of an optimizer fails on a number."""
    if _is_scheduler(given) or isinstance(given, type) or not callable(given):
        return False
    try:
        return isinstance(given(0.0), numbers.Real | Tensor)
    except Exception:  # what it then says of an optimizer is told
        return False


def _made(given: Any, optimizer: Optimizer) -> Any:
    if not callable(given):
        raise RequestError(
            f"schedule is a function of time in epochs, a scheduler of torch.optim.lr_scheduler, or a function of the "
            f"optimizer that makes one, not {type(given).__name__}"
        )
    with as_request(lambda reason: f"schedule gives no factor at time 0, and makes no scheduler either: {reason}"):
        made = given(optimizer)
    if not _is_scheduler(made):
        raise RequestError(f"schedule gives {type(made).__name__} of the optimizer, which is no scheduler")
    return made


def _is_scheduler(given: Any) -> bool:
    return isinstance(given, LRScheduler) or (_is_timm(given) and not isinstance(given, type))


def _is_timm(given: Any) -> bool:
    return all(hasattr(given, name) for name in ("step_update", "step", "state_dict", "load_state_dict"))


def _counts_steps(given: Any, epochs: int, steps: int) -> bool:
    inside = getattr(given, "_schedulers", ())
    if inside:
        return any(_counts_steps(one, epochs, steps) for one in inside)
    length = next((getattr(given, name) for name in LENGTHS if hasattr(given, name)), None)
    if length in (epochs, steps) and epochs != steps:
        return bool(length == steps)
    functions = given.lr_lambdas if isinstance(given, LambdaLR) else []
    places = [getattr(getattr(one, "func", one), "__module__", None) or "" for one in functions]
    return isinstance(given, OneCycleLR | CyclicLR) or any(place.partition(".")[0] in _PER_STEP for place in places)


def _followed(plateau: ReduceLROnPlateau, task: Task) -> str:
    if plateau.mode == task.mode:
        return f"val_{task.monitor}"
    if plateau.mode == "min":
        return "val_loss"
    raise RequestError(f"the scheduler waits for a maximum, and {task.monitor} is better where it is lower: mode='min'")


@contextmanager
def _stepping(given: Any) -> Iterator[None]:
    """In silence: torch warns of orders that a scaler or its own SequentialLR bring about."""
    with warnings.catch_warnings(), as_request(lambda reason: f"the scheduler {type(given).__name__} fails: {reason}"):
        warnings.simplefilter("ignore", UserWarning)
        yield


_LEFT_OUT = object()


def _without_objects(value: Any) -> Any:
    """The value without functions and other objects, which its maker has put there and which no file needs."""
    if value is None or isinstance(value, bool | str | Tensor):
        return value
    if isinstance(value, numbers.Real):  # NumPy's numbers too
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, Mapping):
        kept = {name: _without_objects(one) for name, one in value.items()}
        kept = {name: one for name, one in kept.items() if one is not _LEFT_OUT}
        return Counter(kept) if isinstance(value, Counter) else kept
    if isinstance(value, list | tuple):
        kept_items = [_without_objects(one) for one in value]
        return _LEFT_OUT if any(one is _LEFT_OUT for one in kept_items) else type(value)(kept_items)
    return _LEFT_OUT
