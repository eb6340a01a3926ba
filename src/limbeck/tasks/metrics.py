"""Metrics: figures on held-out data, gathered batch by batch, and joined over processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.types import Targets

HELD = 2**20
"""Numbers of an output that are held before they are counted; 4 MiB in fp32."""
Figures = dict[str, float]


class Metrics(Protocol):
    """What gathers figures on held-out data, without waiting for the device until it is asked."""

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        """Take a batch: a model's output, the targets, and a teacher's output where there is one."""

    def state(self) -> Any:
        """What was gathered, as another process takes it: plain data that can be pickled."""

    def figures(self, states: Sequence[Any]) -> Figures:
        """The figures of all samples in some processes' states, by name.

        Raises:
            RequestError: There is nothing in them.
        """


class Sums:
    """Metrics that are functions of sums over samples.

    Args:
        row: From outputs, targets and a teacher's outputs, or None, to a vector of sums, on the device.
        figures: From the sums to the figures by name; NaN ones are left out.
    """

    def __init__(
        self,
        row: Callable[[Tensor, Targets, Tensor | None], Tensor],
        figures: Callable[[Sequence[float]], Mapping[str, float]],
    ) -> None:
        self._make_row, self._make_figures = row, figures
        self._steps: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
        self._held = 0
        self._row: Tensor | None = None

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        # Copies: a loader may write its next batch into the same tensors, and a compiled model its next outputs.
        self._steps.append((_copy(output), _copy(targets), None if teacher is None else _copy(teacher)))
        self._held += output.numel()
        if self._held > HELD:
            self._count()

    def state(self) -> list[float]:
        self._count()
        return [] if self._row is None else self._row.tolist()

    def figures(self, states: Sequence[list[float]]) -> Figures:
        some = [state for state in states if state]
        if not some:
            raise RequestError("nothing to evaluate: the loader gives no batch at all")
        found = self._make_figures([math.fsum(values) for values in zip(*some, strict=True)])
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def _count(self) -> None:
        """Bring the held batches into the sums, those of one shape all at once."""
        for _, group in groupby(self._steps, key=lambda step: form(*step)):
            outputs, targets, teachers = zip(*group, strict=True)
            taught = None if teachers[0] is None else torch.cat(teachers)
            row = self._make_row(torch.cat(outputs), None if targets[0] is None else torch.cat(targets), taught)
            self._row = row if self._row is None else self._row + row
        self._steps, self._held = [], 0


class Kept:
    """Metrics that need every output at once, such as those of a ranking.

    Args:
        figures: From all outputs and targets, on the CPU, to the figures by name.
    """

    def __init__(self, figures: Callable[[Tensor, Tensor], Mapping[str, float]]) -> None:
        self._make_figures = figures
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        self._outputs.append(output.detach().float().cpu())
        self._targets.append(targets.detach().cpu().clone())

    def state(self) -> Any:
        return [(one.numpy(), other.numpy()) for one, other in zip(self._outputs, self._targets, strict=True)]

    def figures(self, states: Sequence[Any]) -> Figures:
        pairs = [pair for state in states for pair in state]
        if not pairs:
            raise RequestError("nothing to evaluate: the loader gives no batch at all")
        outputs, targets = (torch.cat([torch.from_numpy(pair[at]) for pair in pairs]) for at in (0, 1))
        found = self._make_figures(outputs, targets)
        return {name: value for name, value in found.items() if not math.isnan(value)}


class Joined:
    """Several metrics as one."""

    def __init__(self, parts: Sequence[Metrics]) -> None:
        self._parts = parts

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        for part in self._parts:
            part.update(output, targets, teacher)

    def state(self) -> Any:
        return [part.state() for part in self._parts]

    def figures(self, states: Sequence[Any]) -> Figures:
        found: Figures = {}
        for at, part in enumerate(self._parts):
            found |= part.figures([state[at] for state in states])
        return found


class WithLibrary:
    """A task's own metrics with some of torchmetrics, or others with `update` and `compute`, beside them.

    Of several processes these are joined by `merge_state`, as torchmetrics from 1.5 on has it.
    """

    def __init__(self, own: Metrics, measures: Mapping[str, Any]) -> None:
        self._own = own
        self._measures = {name: copy.deepcopy(measure) for name, measure in measures.items()}

    def update(self, output: Tensor, targets: Targets, teacher: Tensor | None) -> None:
        self._own.update(output, targets, teacher)
        for measure in self._measures.values():
            measure.update(output.detach().cpu(), targets.cpu() if isinstance(targets, Tensor) else targets)

    def state(self) -> Any:
        return self._own.state(), self._measures

    def figures(self, states: Sequence[Any]) -> Figures:
        found = self._own.figures([own for own, _ in states])
        for name in self._measures:
            first, *others = (copy.deepcopy(measures[name]) for _, measures in states)
            for other in others:
                first.merge_state(other)
            found[name] = float(first.compute())
        return found


def _copy(one: Any) -> Any:
    if not isinstance(one, Tensor):
        return one
    return one.detach().float().clone() if one.is_floating_point() else one.detach().clone()


def form(output: Tensor, targets: Targets, teacher: Tensor | None = None) -> Any:
    """What batches must have in common to be counted together: the shape of one sample of each."""
    return (
        output.shape[1:],
        targets.shape[1:] if isinstance(targets, Tensor) else targets is None,
        None if teacher is None else teacher.shape[1:],
    )


def wide(device: torch.device) -> torch.dtype:
    """The widest floats of a device."""
    return torch.float32 if device.type == "mps" else torch.float64
