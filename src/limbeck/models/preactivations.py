"""What a stage of a network is before the ReLU that it ends in, found by the order in which its parts run.

Torchvision's blocks register their one ReLU before the last convolution and run it twice, other networks call a
function: so a network is run, and the tensor is looked for whose ReLU is the stage's output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError, reason_of
from limbeck.taps import Taps, call, evaluating
from limbeck.taps.operations import Operations, watched
from limbeck.taps.wrappers import hooks_run, plain_modules, unwrapped

RECTIFIERS: tuple[Callable[[Tensor], Tensor], ...] = (F.relu, F.relu6)
_RECTIFYING = (nn.ReLU, nn.ReLU6)
_KINDS = ("ReLU", "ReLU6", "relu", "relu_", "relu6", "clamp", "clamp_")
"""What ends a run of linear layers, as modules and as functions."""


@dataclass(frozen=True)
class Preactivation:
    """One stage before its last ReLU.

    Attributes:
        tap: The tap of that tensor; of a stage that ends in something else, of its output.
        norm: Path of the batch norm of the main branch that gives it, None where there is none.
    """

    tap: str
    norm: str | None


@dataclass(frozen=True)
class _Event:
    """A tensor that was seen: its tap, its kind, the stages whose output it or its ReLU is."""

    tap: str
    kind: str
    shape: tuple[int, ...]
    before: frozenset[str]
    equal: frozenset[str]


@dataclass
class _Seen:
    """What one run of a model has shown.

    Attributes:
        events: The tensors, in order.
        ends: How many had been seen when a stage was done.
        runs: How often each ReLU module has run, by the tap of its input.
    """

    events: list[_Event] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)
    runs: Counter[str] = field(default_factory=Counter)


def probe(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """One sample of noise, the same at every call, in the model's dtype and on its device."""
    parameter = next(model.parameters(), torch.empty(0))
    noise = torch.randn(1, *input_shape, generator=torch.Generator().manual_seed(0))
    return noise.to(parameter.device, parameter.dtype)


@torch.no_grad()
def outputs(model: nn.Module, taps: Sequence[str], input_shape: Sequence[int]) -> dict[str, Tensor]:
    """The tensors at some taps for one sample of noise, in evaluation.

    Raises:
        RequestError: A tap that the model does not have, or a model that does not run on that shape.
    """
    reader = Taps(model, taps)
    with evaluating(model):
        try:
            _, tensors = reader.run(probe(model, input_shape))
        except RequestError:
            raise
        except Exception as error:  # the model may be anybody's
            raise RequestError(
                f"{type(model).__name__} does not run on an input of shape {tuple(input_shape)}: {reason_of(error)}"
            ) from error
    return tensors


@torch.no_grad()
def preactivations(model: nn.Module, stages: Sequence[str], input_shape: Sequence[int]) -> list[Preactivation]:
    """Each stage of a network before the ReLU or ReLU6 that it ends in.

    Args:
        model: Any network; its mode and its statistics are left as they are.
        stages: Paths of its stages, as `limbeck.models.stages.stages` finds them.
        input_shape: (C, H, W) of one sample.

    Raises:
        RequestError: The model does not run on that shape.
    """
    with _norms_at_work(model):
        ends = outputs(model, stages, input_shape)
        wanted = {stage: ends[stage] for stage in stages}
        seen = _watch(unwrapped(model), wanted, probe(model, input_shape))
    return [_found(stage, seen.events[: seen.ends.get(stage)], seen.runs) for stage in stages]


def _found(stage: str, events: Sequence[_Event], runs: Mapping[str, int]) -> Preactivation:
    before = [number for number, event in enumerate(events) if stage in event.before]
    equal = [number for number, event in enumerate(events) if stage in event.equal]
    at = before[-1] if before else equal[-1] if equal else None
    if at is None:
        return Preactivation(stage, None)
    if not before:
        return Preactivation(stage, _norm(events, at))
    # A module's input is read by a hook alone; operations are watched for, at a price.
    names = [events[number].tap for number in before]
    hooked = [name for name in names if name.endswith(":in") and runs[name] == 1]
    named = [name for name in names if not name.endswith(":in")]
    return Preactivation((hooked or named or [stage])[-1], _norm(events, at))


def _norm(events: Sequence[_Event], at: int) -> str | None:
    """The first batch norm of this shape behind the activation before; a later one may be that of a shortcut."""
    found = None
    for event in reversed(events[: at + 1]):
        if event.kind in _KINDS:
            break
        if event.kind.startswith("BatchNorm") and event.shape == events[at].shape:
            found = event.tap
    return found


def _watch(model: nn.Module, ends: Mapping[str, Tensor], inputs: Tensor) -> _Seen:
    """Run a model, and see what runs in it."""
    seen = _Seen()

    def see(tap: str, kind: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            return
        with torch._C.DisableTorchFunction():  # what is compared here is no operation of the model
            same = {stage: end for stage, end in ends.items() if end.shape == value.shape}
            before = frozenset(stage for stage, end in same.items() if _rectified_is(value, end))
            equal = frozenset(stage for stage, end in same.items() if _alike(value, end))
            seen.events.append(_Event(tap, kind, tuple(value.shape), before, equal))
        if tap in ends:  # a stage that is a single layer, which is seen after its own hooks
            seen.ends[tap] = len(seen.events)

    def entering(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen.runs[f"{path}:in"] += 1
            see(f"{path}:in", "", args[0] if args else None)

        return before

    def leaving(stage: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, output: Any) -> None:
            seen.ends[stage] = len(seen.events)

        return after

    modules = plain_modules(model)
    rectifiers = {path: module for path, module in modules.items() if path and isinstance(module, _RECTIFYING)}
    handles = [module.register_forward_pre_hook(entering(path)) for path, module in rectifiers.items()]
    handles += [modules[stage].register_forward_hook(leaving(stage)) for stage in ends if stage in modules]
    try:
        with evaluating(model), hooks_run(model.modules()), Operations(model, watched(model), see).watching():
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _rectified_is(value: Tensor, end: Tensor) -> bool:
    """Whether a tensor with negative elements becomes a stage's output by a ReLU."""
    return bool(value.min() < 0) and any(_alike(rectify(value), end) for rectify in RECTIFIERS)


def _alike(value: Tensor, end: Tensor) -> bool:
    return torch.allclose(value.float(), end.float(), rtol=1e-4, atol=1e-5 * float(end.abs().max()))


@contextmanager
def _norms_at_work(model: nn.Module) -> Iterator[None]:
    """Norms that multiply by 0, as residual branches may begin, multiply by 1 inside: else nothing is told apart."""
    norms = [module for module in model.modules() if isinstance(getattr(module, "running_var", None), Tensor)]
    weights = [one.weight for one in norms if isinstance(one.weight, Tensor) and not one.weight.any()]
    try:
        for weight in weights:
            weight.fill_(1)
        yield
    finally:
        for weight in weights:
            weight.zero_()
