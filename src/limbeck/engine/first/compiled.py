"""Whether a compiled student computes what its own code computes: tried on the first batch.

torch finds compiled code again by graph and version alone. Where machines of several kinds share its folder, one loads
what was compiled for another's instructions, and computes with it anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from limbeck.distillers import Scheme
from limbeck.engine.devices.compiling import CompileError, compiled
from limbeck.engine.devices.fabric import from_all
from limbeck.engine.devices.sharding import is_sharding
from limbeck.engine.first.prepared import Prepared
from limbeck.engine.first.stand_in import has_compiled_parts, unchanged
from limbeck.seeds import same_draws, seed_everything
from limbeck.taps.wrappers import as_written
from limbeck.types import Batch, TeacherOutput

EXPLAINED = 10.0
"""Compiled code may be so many times as far from a plain step as another plain step is: with other draws of dropout,
and with inputs that rounding has changed."""
LARGEST = {torch.float32: 0.05, torch.float64: 0.05}
"""Relative distance that is always taken for rounding, by the precision of a step."""
LARGEST_HALF = 0.25
"""The same in half precision."""
_OUTPUTS = ("loss", "output")


def compiled_wrongly(scheme: Scheme, first: Prepared, fabric: Fabric, mode: str | None) -> str:
    """What a compiled student gives otherwise than its own code, in any process; "" where there is nothing.

    Two plain steps and a compiled one are compared, in training mode: loss, output, and the gradient of each weight.
    Nothing is run where nothing compiled would be: without torch.compile, or with a sharded student.

    Args:
        scheme: What is trained, on its device; left as it is.
        first: The first batch, the teacher's answers and the memory layout.
        fabric: Device and precision.
        mode: torch.compile's; None where at most the user has compiled the student.
    """
    if is_sharding(fabric) or (mode is None and not has_compiled_parts(scheme)):
        return ""
    with same_draws(), unchanged(scheme), first.layout.kept(), compiled(scheme.student, mode, first.example.size):
        own = _Steps(scheme.train(), first.example, first.teacher_output, fabric).other()
    return next(filter(None, from_all(fabric, own)), "")


@dataclass(frozen=True)
class _Steps:
    """Steps, without an update, of a scheme whose student may be compiled."""

    scheme: Scheme
    batch: Batch
    teacher_output: TeacherOutput | None
    fabric: Fabric

    def other(self) -> str:
        """What the compiled step gives otherwise than a plain one."""
        with as_written():
            plain, precision = self._results(0, self.batch)
            again, _ = self._results(1, _rounded(self.batch, precision))
        noise = {name: _size(value - again[name]) for name, value in plain.items()}
        del again
        try:
            found, _ = self._results(0, self.batch)
        except CompileError as error:  # with the terms' hooks, without which it was tried
            return error.fault
        share, largest = _shares(plain), LARGEST.get(precision, LARGEST_HALF)
        for name, value in plain.items():
            size = _size(value) + share[name in _OUTPUTS] * math.sqrt(value.numel())
            limit, far = largest * size + EXPLAINED * noise[name], _size(found[name] - value)
            if math.isfinite(limit) and not far <= limit:
                times = f", off by {far / size:.2g} times its size" if math.isfinite(far) else " (not a finite one)"
                return f"torch.compile gives another {name} than the student's own code{times}"
        return ""

    def _results(self, seed: int, batch: Batch) -> tuple[dict[str, Tensor], torch.dtype]:
        """Loss, output and gradients of a step, by name, and the precision in which the student computed."""
        seed_everything(seed)
        device = self.fabric.device.type
        with self.fabric.autocast():
            mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
            step = self.scheme(batch, self.teacher_output)
        weights = {name: weight for name, weight in self.scheme.named_parameters() if weight.requires_grad}
        gradients = torch.autograd.grad(step.loss, list(weights.values()), allow_unused=True)
        results = dict(zip(_OUTPUTS, (step.loss.detach().clone(), step.output.detach().clone()), strict=True))
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                results[f"gradient of {name}"] = gradient.clone()  # CUDA graphs write the next step's over it
        return results, mixed or next(iter(weights.values())).dtype


def _shares(results: dict[str, Tensor]) -> dict[bool, float]:
    """The root mean square of all gradients and of all outputs, which rounding in each of them goes by."""
    return {
        outputs: math.sqrt(_mean_square([value for name, value in results.items() if (name in _OUTPUTS) == outputs]))
        for outputs in (False, True)
    }


def _mean_square(values: Sequence[Tensor]) -> float:
    return sum(_size(value) ** 2 for value in values) / max(sum(value.numel() for value in values), 1)


def _size(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.float()))


def _rounded(batch: Batch, precision: torch.dtype) -> Batch:
    """A batch whose inputs differ from this one's as much as rounding to a precision makes them differ."""
    eps = torch.finfo(precision).eps
    return batch.changed(lambda x: x * (1 + eps * torch.randn_like(x)) if x.is_floating_point() else x)
