"""What every way of distilling has in common: one contract, (batch, signal) → Step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck.taps import call, logits_of
from limbeck.types import Batch, Inputs, Signal, Step


class Scheme(nn.Module):
    """A student with all that is trained beside it; the engine wraps it once, and calls it once a step.

    Subclasses give `forward(batch, signal) -> Step`, and `prepare` where they size something by an example.

    Args:
        student: The model to ship.
        inputs: What prepares the student's inputs (`limbeck.models.Preprocess`); None leaves them as they are.
    """

    def __init__(self, student: nn.Module, inputs: nn.Module | None = None) -> None:
        super().__init__()
        self.student = student
        self.inputs = inputs
        self.epoch = 0

    @property
    def teacher_taps(self) -> Sequence[str]:
        """The taps that a teacher must give."""
        return ()

    def prepare(self, batch: Batch, signal: Signal | None) -> None:
        """Check that student and signal fit, and size what depends on their shapes; before the optimizer is made."""

    def at(self, epoch: int) -> None:
        """Tell the scheme which epoch (from 0) begins, for weights that follow a schedule."""
        self.epoch = epoch

    def predict(self, inputs: Inputs) -> Tensor:
        """The student's logits (B, C)."""
        return logits_of(call(self.student, self.prepared(inputs)))

    def prepared(self, inputs: Inputs) -> Inputs:
        """The inputs as the student reads them."""
        if self.inputs is None:
            return inputs
        made: Inputs = self.inputs(inputs)
        return made

    def forward(self, batch: Batch, signal: Signal | None = None) -> Step:
        raise NotImplementedError
