"""Optimizers and learning-rate schedules by name.

A schedule is a pure function from time, in epochs, to a factor of the learning rate; nothing of it needs saving.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from limbeck.distillers import Scheme
from limbeck.dtensors import is_dtensor
from limbeck.engine.optimizers.groups import OUTER, Grouped
from limbeck.errors import RequestError, as_request, shown, some, unknown
from limbeck.imports import load_object
from limbeck.late_compiler import put_off, take_step
from limbeck.options import fitting

MakeOptimizer = Callable[[Iterable[Any]], Optimizer]
"""A function of parameters, or of pairs of name and parameter."""
Schedule = Callable[[float], float]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def optimizer(
    name: str,
    *,
    lr: float,
    groups: Sequence[tuple[str, Mapping[str, Any]]] = (),
    no_decay: Sequence[str] = (),
    **options: Any,
) -> MakeOptimizer | Grouped:
    """A function that makes the named optimizer for some parameters, fused where the device allows it.

    Args:
        name: One of `OPTIMIZERS`, or "package.module:Class" of an optimizer of one's own.
        lr: Learning rate > 0.
        groups: Pairs of a pattern of parameters' names and their own options (`limbeck.engine.optimizers.groups`).
        no_decay: Of "norms" and "biases" those that get no weight decay.
        **options: The torch optimizer's own options, such as momentum, weight_decay or betas.

    Raises:
        RequestError: An unknown name or option, or a value that the optimizer refuses.
    """
    if name not in OPTIMIZERS and ":" not in name:
        raise unknown("optimizer", name, [*OPTIMIZERS, "package.module:Class"])
    kind: Callable[..., Optimizer] = OPTIMIZERS[name] if name in OPTIMIZERS else load_object(name, "optimizer")
    with as_request(lambda reason: f"optimizer {name}: {reason}"):
        for pattern, own in groups:
            fitting(f"the group {pattern} of optimizer {name}", kind, own, given={"params"})
        options = fitting(f"optimizer {name}", kind, options, given={"params", "lr"}, more={"lr"})

    def make(parameters: Iterable[Any]) -> Optimizer:
        parameters = list(parameters)
        tensors = [p for one in parameters for p in (one["params"] if isinstance(one, dict) else [one])]
        fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in tensors)
        fused = fused and not (name == "sgd" and any(is_dtensor(p) for p in tensors))  # torch has none
        faster = {"fused": fused} if name in OPTIMIZERS and "foreach" not in options else {}
        made = kind(parameters, **{"lr": lr, **faster, **options})
        if not isinstance(made, Optimizer):
            raise RequestError(f"it gives {type(made).__name__}, which is no torch.optim.Optimizer")
        return made

    with as_request(lambda reason: f"optimizer {name}: {reason}"):
        _try(make)
    return Grouped(make, groups, no_decay) if groups or no_decay else make


_WRAPPERS = ("lightning_fabric.wrappers", "lightning.fabric.wrappers", "accelerate.optimizer")


def plain_optimizer(given: Optimizer) -> Optimizer:
    """The optimizer inside Fabric's or Accelerate's wrapper: `fit` wraps it itself."""
    wrapped = any(kind.__module__ in _WRAPPERS for kind in type(given).__mro__)
    inside = getattr(given, "optimizer", None) if wrapped else None
    return inside if isinstance(inside, Optimizer) else given


def trained_parameters(distiller: Scheme) -> list[nn.Parameter]:
    """All that a scheme trains.

    Raises:
        RequestError: There is nothing.
    """
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    if not trained:
        raise RequestError("nothing to train: no parameter of the student requires a gradient")
    return trained


def made_optimizer(given: MakeOptimizer | Grouped | Optimizer, distiller: Scheme) -> Optimizer:
    """The optimizer of all that a scheme trains: the one that is given, or made by the function that is given.

    Raises:
        RequestError: There is nothing to train, or the optimizer does not hold all of it.
    """
    trained = trained_parameters(distiller)
    put_off()
    if isinstance(given, Grouped):
        return given.of(distiller)
    if not isinstance(given, Optimizer):
        if not callable(given):
            raise RequestError(f"optimizer is a function such as partial(torch.optim.Adam, lr=1e-3), not {given!r}")
        names = _takes_names(given)
        hint = "" if names else "; it gets parameters, and (name, parameter) if it calls them named_parameters"
        with as_request(lambda reason: f"the function for the optimizer fails: {reason}{hint}"):
            made = given(named_parameters(distiller) if names else trained)
        if not isinstance(made, Optimizer):
            raise RequestError(f"the function for the optimizer gives {shown(made)}, which is no torch.optim.Optimizer")
        _check_holds(made, distiller, "put them into a group, or freeze them by requires_grad_(False)")
        return made
    given = plain_optimizer(given)
    _check_holds(
        given, distiller, "give a function of the parameters instead, such as partial(torch.optim.Adam, lr=1e-3)"
    )
    return given


def _check_holds(optimizer: Optimizer, distiller: Scheme, remedy: str) -> None:
    """Raise RequestError for parameters that would not be trained."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left_out = [name for name, p in named_parameters(distiller) if id(p) not in held]
    if left_out:
        raise RequestError(f"the optimizer does not hold {some(left_out, 4)}; {remedy}")


def named_parameters(distiller: Scheme) -> list[tuple[str, nn.Parameter]]:
    """All that a scheme trains, with names: the student's as it has them itself, adapters' and losses' after them."""
    named = ((name, one) for name, one in distiller.named_parameters() if one.requires_grad)
    return [(OUTER.sub("", name), one) for name, one in named]


def _takes_names(given: Callable[..., Optimizer]) -> bool:
    """Whether a function's first parameter is called `named_parameters`."""
    try:
        return next(iter(inspect.signature(given).parameters), "") == "named_parameters"
    except (TypeError, ValueError):  # of what is not written in Python it is not known
        return False


def _try(make: MakeOptimizer) -> None:
    """Two steps on one number: options that the optimizer takes, and cannot step with, fail here."""
    number = nn.Parameter(torch.zeros(1))
    put_off()
    made = make([number])
    for _ in range(2):
        number.grad = torch.ones(1)
        take_step(made)
    if not torch.isfinite(number).all():
        raise RequestError("two steps with these options lead to no finite number; take smaller values")


def constant() -> Schedule:
    """The learning rate as it is."""
    return lambda time: 1.0


def step(milestones: Sequence[float], factor: float = 0.1) -> Schedule:
    """Multiply by `factor` at each milestone.

    Args:
        milestones: Times in epochs.
        factor: What the rate is multiplied by.

    >>> [round(step([2, 3])(time), 4) for time in (0, 1.9, 2, 3)]
    [1.0, 1.0, 0.1, 0.01]
    """
    return lambda time: factor ** sum(time >= milestone for milestone in milestones)


def cosine(epochs: float, floor: float = 0.0) -> Schedule:
    """Half a cosine from 1 down to `floor`.

    Args:
        epochs: The time at which the floor is reached.
        floor: The last factor, 0–1.

    Source: Loshchilov, Hutter: SGDR, ICLR 2017, arXiv:1608.03983.
    """
    return lambda time: floor + (1 - floor) * (1 + math.cos(math.pi * min(time / epochs, 1.0))) / 2


def warmup(epochs: float, then: Schedule) -> Schedule:
    """Grow linearly from 0 in the first `epochs`; after that follow `then`, whose time runs from the start."""
    return lambda time: then(time) * min(1.0, time / epochs) if epochs else then(time)


SCHEDULES = ("constant", "cosine", "step")


def schedule(name: str, epochs: float, /, *, warmup_epochs: float = 0.0, **options: Any) -> Schedule:
    """A schedule by name, over a run of `epochs`.

    Args:
        name: One of `SCHEDULES`.
        epochs: Length of the run.
        warmup_epochs: Length of a linear warm-up before it.
        **options: `milestones` and `factor` of step, `floor` of cosine.

    Raises:
        RequestError: An unknown name or option.
    """
    makers: dict[str, Callable[..., Schedule]] = {"constant": constant, "cosine": cosine, "step": step}
    if name not in makers:
        raise unknown("schedule", name, makers)
    options = fitting(f"schedule {name}", makers[name], options, given={"epochs"}, more={"warmup_epochs"})
    with as_request(lambda reason: f"schedule {name}: {reason}"):
        chosen = makers[name](epochs, **options) if name == "cosine" else makers[name](**options)
        made = warmup(warmup_epochs, chosen)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            _check_factor(made(share * epochs))
    return made


def _check_factor(factor: float) -> None:
    if not (isinstance(factor, int | float) and 0 <= factor < math.inf):
        raise RequestError(f"its factor of the learning rate is {shown(factor)} at a time; it must be 0 or more")
