"""The balance of a scheme's losses: how strongly each pulls at the student, beside the labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from limbeck.distillers import Distiller, Scheme
from limbeck.distillers.offline import TASK
from limbeck.engine.first.batch import Trial
from limbeck.engine.first.stand_in import stand_in
from limbeck.types import Batch, TeacherOutput

SAMPLES = 128
"""Of the first batch, on which the balance is measured."""
LEAST, MOST = 0.01, 100.0
"""Shares of the task loss's gradient below and above which a term is warned of."""


@dataclass(frozen=True)
class Pull:
    """What one part of a loss does on the first batch.

    Attributes:
        name: "task", or a term's name.
        weight: Its factor in the loss, after any ramp.
        loss: Its value times the weight.
        gradient: The norm of that loss's gradient on all trained weights of the student; 0 where it reaches none.
        share: The same norm over the task loss's, both on the weights that both reach; None where there is no such
            weight, or no task loss.
    """

    name: str
    weight: float
    loss: float
    gradient: float
    share: float | None

    @property
    def warning(self) -> str | None:
        """What is warned of; None where nothing is."""
        if not (math.isfinite(self.loss) and math.isfinite(self.gradient)):
            return f"{self.name}: its loss or gradient is not finite on the first batch"
        if self.loss == self.gradient == 0 and self.weight and self.name != TASK:
            return (
                f"{self.name}: 0 on the first batch: the student answers as its teacher there, or the loss compares "
                "what these outputs do not have (probabilities of classes in a regression: mse compares values)"
            )
        if self.share is None or LEAST <= self.share <= MOST:
            return None
        remedy = "larger" if self.share < LEAST else "smaller"
        return (
            f"{self.name}: on the first batch its gradient is {self.share:.2g} times the task loss's on the weights "
            f"that both reach; its weight {self.weight:g} may be meant for other networks: try a {remedy} one"
        )


def balance(
    scheme: Scheme,
    batch: Batch,
    teacher_output: TeacherOutput | None,
    autocast: Callable[[], AbstractContextManager[Any]],
    epochs: int,
) -> Sequence[Pull]:
    """Measure each part of a scheme's loss and its gradient on the first batch, in training mode.

    It is done on a copy: nothing of the scheme, its buffers, gradients or the random generators changes. Weights are
    those of the last epoch, so that a ramp is over.

    Args:
        scheme: Prepared, on its device.
        batch: Samples; the first `SAMPLES` are taken.
        teacher_output: What the teacher says about them.
        autocast: Makes the context of a training's forward passes.
        epochs: How many epochs it is trained for.

    Returns:
        The task loss, where it counts, and each term; nothing for schemes without terms or without a teacher, whose
        terms compare the student with itself as it starts.
    """
    if not isinstance(scheme, Distiller) or not len(scheme.terms) or teacher_output is None:
        return ()
    few = Trial(scheme, batch, teacher_output, autocast).first(SAMPLES)
    try:
        with stand_in(scheme) as made:
            tried = cast(Distiller, made)
            tried.at(epochs - 1)
            with autocast():
                _, parts, weights = tried.losses(few.batch, few.teacher_output)
            return _pulls(tried, parts, weights)
    except torch.OutOfMemoryError:  # the training itself holds less at once
        return ()


def in_words(pulls: Sequence[Pull]) -> str:
    """One line on all parts."""
    task = next((pull for pull in pulls if pull.name == TASK), None)
    parts = [] if task is None else [f"task {task.loss:.3g}"]
    for pull in pulls:
        if pull is not task:
            share = "" if pull.share is None else f" with {pull.share:.2g} times its gradient"
            parts.append(f"{pull.name} {pull.loss:.3g}{share}")
    return f"weighted losses on the first batch: {', '.join(parts)}"


def _pulls(scheme: Distiller, parts: Mapping[str, Tensor], weights: Sequence[float]) -> Sequence[Pull]:
    trained = [weight for weight in scheme.student.parameters() if weight.requires_grad]
    reference: list[Tensor | None] = [None] * len(trained)
    pulls = []
    for (name, part), weight in zip(parts.items(), weights, strict=True):
        loss = weight * part
        found: Sequence[Tensor | None] = [None] * len(trained)
        if loss.requires_grad and weight:
            found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        share: float | None = None
        if name == TASK:
            reference, share = list(found), 1.0
        else:
            both = [(g, r) for g, r in zip(found, reference, strict=True) if g is not None and r is not None]
            of_task = _norm([r for _, r in both])
            share = _norm([g for g, _ in both]) / of_task if of_task else None
        pulls.append(Pull(name, weight, float(loss.detach()), _norm([g for g in found if g is not None]), share))
    return pulls


def _norm(gradients: Sequence[Tensor]) -> float:
    """Of all of them together; 0 of none."""
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
