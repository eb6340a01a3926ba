"""Regression: one number a sample, or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks.metrics import Metrics, Sums, wide
from limbeck.tasks.task import Task
from limbeck.types import Targets


class Regression(Task):
    """Outputs (B,), (B, 1) or (B, K), and targets of as many numbers, in the units of the targets.

    The loss is the mean squared error.

    Args:
        **others: As for every `Task`; `loss=torch.nn.functional.l1_loss` takes the absolute error.

    Metrics: "rmse" (the monitor, min), "mae", "r2" (mean over the K outputs), "loss" (mean squared error), and
    "distance" to a teacher: the root of the mean squared difference of both outputs.
    """

    monitor = "rmse"
    mode = "min"
    running = "mae"

    def output(self, raw: Any, classes: int | None = None) -> Tensor:
        found = super().output(raw, classes)
        return found.unsqueeze(1) if found.dim() == 1 else found

    def check_output(self, output: Tensor) -> None:
        if output.dim() not in (1, 2):
            raise RequestError(f"a regression student gives (B,) or (B, K), and this one gives {tuple(output.shape)}")

    def check(self, output: Tensor, targets: Targets) -> None:
        if not isinstance(targets, Tensor):
            raise RequestError("the loader gives no targets; give numbers, or leave the task loss out: task_weight 0")
        if targets.numel() != output.numel() or len(targets) != len(output):
            raise RequestError(
                f"regression targets of shape {tuple(targets.shape)} do not fit outputs {tuple(output.shape)}: both "
                "have as many numbers a sample"
            )

    def loss(self, output: Tensor, targets: Targets) -> Tensor:
        loss = F.mse_loss if self.own_loss is None else self.own_loss
        return loss(output, like(targets, output))

    def score(self, output: Tensor, targets: Targets) -> Tensor:
        error = (output - like(targets, output)).abs().reshape(len(output), -1)
        return torch.stack([error.sum(1), torch.full_like(error[:, 0], error.shape[1])])

    def own_metrics(self) -> Metrics:
        return Sums(_row, _figures)


def like(targets: Tensor, output: Tensor) -> Tensor:
    """Targets in the shape and dtype of outputs: (B,) and (B, 1) are the same, and never broadcast to (B, B)."""
    return targets.reshape(output.shape).to(output.dtype)


def _row(output: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """Samples, numbers, absolute error, squared distance to the teacher, numbers that it gave; then by output the
    squared error, the sum of the targets, and of their squares.
    """
    dtype = wide(output.device)
    found = output.reshape(len(output), -1).to(dtype)
    wanted = targets.reshape(found.shape).to(dtype)
    error = found - wanted
    apart = None if teacher is None else (found - teacher.reshape(found.shape).to(dtype)).square().sum()
    zero = error.new_zeros(())
    sums = [
        zero + len(output),
        zero + error.numel(),
        error.abs().sum(),
        zero if apart is None else apart,
        zero + (0 if apart is None else error.numel()),
    ]
    table = torch.stack([error.square(), wanted, wanted.square()]).sum(1)
    return torch.cat([torch.stack(sums), table.flatten()])


def _figures(sums: Sequence[float]) -> Mapping[str, float]:
    samples, numbers, absolute, apart, asked, *table = sums
    outputs = len(table) // 3
    squared, first, second = table[:outputs], table[outputs : 2 * outputs], table[2 * outputs :]
    spreads = [s - f * f / samples for f, s in zip(first, second, strict=True)]
    fits = [1 - e / s if s > 0 else math.nan for e, s in zip(squared, spreads, strict=True)]
    mse = math.fsum(squared) / numbers
    return {
        "samples": samples,
        "rmse": math.sqrt(mse),
        "mae": absolute / numbers,
        "r2": math.fsum(fits) / outputs,
        "loss": mse,
        "distance": math.sqrt(apart / asked) if asked else math.nan,
    }
