"""Mean teacher: the student learns from a running average of itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distillers.offline import Distiller
from limbeck.distillers.scheme import TaskLoss, refuse_teacher
from limbeck.distillers.term import Term
from limbeck.errors import RequestError
from limbeck.models import lazy_layers
from limbeck.taps import LOGITS, Taps, call, evaluating
from limbeck.tasks import Task
from limbeck.types import Batch, Inputs, Step, TeacherOutput


# A distiller in all but where its teacher outputs come from, hence a subclass of a subclass.
class MeanTeacher(Distiller):
    """A distiller whose teacher outputs come from the exponential moving average of its student.

        ema ← d · ema + (1 − d) · student,   d = min(decay, 1 − 1/(step + 1)) after step 1, 2, …

    So the average is the plain mean of all weights at first. It is brought up to date at the beginning of each
    forward pass in training mode, which equals doing so after the step before; where several batches make one
    step (`accumulate_steps`), `decay` therefore counts batches. The first pass takes the student as it then stands.
    Floating-point buffers, batch norm's running statistics among them, are averaged with the same d; integer ones
    are copied. The average speaks in eval mode, gets no gradient, and belongs to the scheme's state. The student to
    ship is still `student`; the average is `ema`, one step behind until `update`.

    Args:
        student: The model to train; its average starts as a copy of it.
        terms: The losses against the average; the teacher's taps are then the student's own.
        decay: Largest d, in [0, 1).
        other_view: In training the average reads another augmented version of the samples than the student, as the
            paper has it: `Batch.other`, which `limbeck.data.make_loader(…, pairs=True)` gives.
        task_weight: Weight of the task loss.
        task: What is learned; `Classification()` by default, whose loss is cross-entropy.
        task_loss: `task_loss(output, targets) -> Tensor` in place of that, where no task is given.
        inputs: What prepares the inputs of both; None leaves them as they are.

    As published the term is `Term(losses.probability_mse, weight=ramp(5, 100, "exponential"))`, with decay 0.97 and
    other_view (the authors' PyTorch code on CIFAR-10 with 4,000 labels,
    180 epochs). What differs here: the average is in eval mode where theirs is in training mode, with dropout and the
    batch's statistics; buffers are averaged where theirs keeps its own; the task loss is the mean over the samples with
    a label, theirs their sum by the full batch's size.

    Raises:
        RequestError: No term, a decay outside its range, a tap that the student does not have, or a lazy layer.

    Transfers: what the running average of the student says.
    Use: without a teacher; the paper's case is few labels and many samples without.
    Source: Tarvainen, Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780;
        recommended term probability_mse with weight 100, reached exponentially within 5 of 180 epochs.
    """

    def __init__(
        self,
        student: nn.Module,
        terms: Sequence[Term],
        *,
        decay: float = 0.999,
        other_view: bool = False,
        task_weight: float = 1.0,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__(student, terms, task_weight=task_weight, task=task, task_loss=task_loss, inputs=inputs)
        if not terms:
            raise RequestError("a mean teacher needs a term to teach by, such as Term(losses.kd)")
        if not 0 <= decay < 1:
            raise RequestError(f"decay must be at least 0 and below 1, not {decay}")
        self.decay = decay
        self.other_view = other_view
        if lazy := lazy_layers(self.student):
            raise RequestError(
                f"the average starts as a copy of the student, whose lazy layer {lazy[0]} has never run; run the "
                "student once on an example first"
            )
        self.ema = copy.deepcopy(self.student)
        for parameter in self.ema.parameters():  # a script has no `requires_grad_`
            parameter.requires_grad_(False)
        self._ema_taps = Taps(self.ema, super().teacher_taps, "teacher")
        self._averaged = 0

    @property
    def teacher_taps(self) -> Sequence[str]:
        return ()

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        """One training step's loss, after bringing the average up to date where training is on."""
        if self.training:
            self.update()
        return super().forward(batch, teacher_output)

    def losses(
        self, batch: Batch, teacher_output: TeacherOutput | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor], Sequence[float]]:
        """What `forward` adds up, against the average as it is."""
        return super().losses(batch, self._says(batch))

    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Size the adapters and check every term against the average; see `Distiller.prepare`.

        Raises:
            RequestError: What `Distiller.prepare` raises, or a teacher was given.
        """
        refuse_teacher(self, teacher_output)
        super().prepare(batch, self._says(batch))

    @torch.no_grad()
    def update(self) -> None:
        """Take the student's present weights into the average; after training, call it once for the last step."""
        self._averaged += 1
        weight = max(1 - self.decay, 1 / self._averaged)
        for average, present in zip(_tensors(self.ema), _tensors(self.student), strict=True):
            if average.is_floating_point():
                average.lerp_(present, weight)
            else:
                average.copy_(present)

    def predictions(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """Logits (B, C) of "student", which `predict` gives, and of "ema", its average."""
        return {"student": self.predict(inputs), "ema": self.answer(call(self.ema, self.prepared(inputs)))}

    @torch.no_grad()
    def _says(self, batch: Batch) -> TeacherOutput:
        inputs = batch.inputs
        if self.other_view and batch.other is not None:
            inputs = batch.other
        elif self.other_view and self.training:
            raise RequestError(
                "the average is to read another view of the samples, and the batch holds none; load them by "
                "limbeck.data.make_loader(…, pairs=True), or leave other_view out"
            )
        with evaluating(self.ema):
            _, tensors = self._ema_taps.run(self.prepared(inputs), self.answer)
        return TeacherOutput(tensors.pop(LOGITS), tensors)

    def get_extra_state(self) -> dict[str, Any]:
        return {"averaged": self._averaged}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._averaged = int(state["averaged"])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())
