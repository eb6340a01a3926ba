"""What is trained, wrapped for its processes, with its optimizer and its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_fabric import Fabric
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.engine.devices.sharding import load_optimizer, trained_copy
from limbeck.engine.optimizers.groups import Grouped
from limbeck.engine.optimizers.named import MakeOptimizer, Schedule, made_optimizer
from limbeck.engine.optimizers.schedulers import AnySchedule, Scheduler, steps_in_all, taken_schedule


@dataclass(frozen=True)
class Built:
    """The parts of a training.

    Attributes:
        scheme: What is trained: the scheme itself, or its sharded copy.
        model: Fabric's wrapper around it.
        optimizer: Its optimizer.
        stepper: Fabric's wrapper around that.
        schedule: What the learning rate follows.
    """

    scheme: Scheme
    model: Any
    optimizer: Optimizer
    stepper: Any
    schedule: Schedule | Scheduler | None


def build(
    scheme: Scheme,
    fabric: Fabric,
    optimizer: MakeOptimizer | Grouped | Optimizer,
    schedule: AnySchedule | None,
    length: tuple[int, int, int],
    *,
    validates: bool,
) -> Built:
    """Wrap a prepared scheme, and make its optimizer and schedule.

    Args:
        scheme: What is trained, on its device.
        fabric: The processes.
        optimizer: As `fit` takes it.
        schedule: As `fit` takes it.
        length: Epochs of the training, batches of an epoch, batches of a step.
        validates: Whether there is a validation.

    Raises:
        RequestError: The optimizer or the schedule does not fit.
    """
    epochs, steps = length[0], steps_in_all(*length)
    trained = trained_copy(scheme, fabric)
    model = fabric.setup_module(trained)
    made = made_optimizer(optimizer, trained)
    rates = taken_schedule(schedule, made, fabric, epochs=epochs, steps=steps, validates=validates)
    for group in made.param_groups:
        group.setdefault("initial_lr", group["lr"])
    if made.state:  # it comes from an earlier training, and its moments lie as the weights did then
        load_optimizer(made, made.state_dict())
    return Built(trained, model, made, fabric.setup_optimizers(made), rates)
