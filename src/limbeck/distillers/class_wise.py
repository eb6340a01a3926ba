"""Class-wise self-distillation: samples of one class should look alike to the student."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.distillers.scheme import Scheme, TaskLoss, check_classifies, check_options, check_targets, refuse_teacher
from limbeck.distillers.task import task_value
from limbeck.errors import RequestError
from limbeck.losses import kd
from limbeck.taps import call, evaluating
from limbeck.tasks import Task
from limbeck.types import Batch, Step, TeacherOutput, labelled


class ClassWise(Scheme):
    """CS-KD: each sample learns from what the student says about another sample of its class.

        loss = task_weight · CE(z, y) + weight · 1/B · Σ_i T² · KL(p_{π(i)} ‖ p_i),   y_{π(i)} = y_i

    p = softmax(z / T); p_{π(i)} carries no gradient. π goes round each class within the batch (`partners`); a
    sample alone in its class, or without a label, adds 0 to the sum. The paper instead draws a partner for every
    sample from the whole data set and runs those partners through the student besides: there all B samples count, at
    the price of a second forward pass. Here, with C classes of one size, about 1 − (1 − 1/C)^(B−1) of them do: nearly
    all of 128 for 10 classes, 72 % for 100. Any loader serves.

    Args:
        student: The model to ship, giving (B, C) logits.
        weight: Weight of the class-wise term.
        temperature: T > 0.
        task_weight: Weight of the labels.
        task: What is learned; `Classification()` by default, whose loss is cross-entropy.
        task_loss: `task_loss(output, targets) -> Tensor` in place of that, where no task is given.
        inputs: What prepares the student's inputs; None leaves them as they are.

    Raises:
        RequestError: An option out of its range.

    Transfers: what the student says about another sample of the class.
    Use: without a teacher, against overconfidence, above all among classes that look alike; needs labels.
    Source: Yun et al., Regularizing Class-wise Predictions via Self-knowledge Distillation, CVPR 2020,
        arXiv:2003.13964; recommended weight 1, T 4.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        weight: float = 1.0,
        temperature: float = 4.0,
        task_weight: float = 1.0,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__(student, inputs, task, task_loss)
        check_options(temperature=temperature, weight=weight, task_weight=task_weight)
        self.weight = weight
        self.temperature = temperature
        self.task_weight = task_weight

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        """One training step's loss, its parts "task" and "class-wise"."""
        logits = self.answer(call(self.student, self.prepared(batch.inputs)))
        # A sample without a partner is its own, where the divergence is 0.
        partner = logits.detach()[partners(batch.targets)]
        task = task_value(self.task, logits, batch.targets)
        alike = kd(logits, partner, temperature=self.temperature).mean()
        parts = {"task": task.detach(), "class-wise": alike.detach()}
        return Step(self.task_weight * task + self.weight * alike, logits, parts)

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Check the labels against the student.

        Raises:
            RequestError: Labels that are no class indices or out of range, or a teacher given.
        """
        refuse_teacher(self, teacher_output)
        check_classifies(self)
        if batch.targets.is_floating_point() or batch.targets.dim() != 1:
            raise RequestError(
                f"class-wise distillation needs one class index a sample, not targets {tuple(batch.targets.shape)} of "
                f"{batch.targets.dtype}; leave mixup and cutmix out"
            )
        with evaluating(self):
            check_targets(self.task, self.predict(batch.inputs), batch.targets)


def partners(targets: Tensor) -> Tensor:
    """For each sample the next one of its class in the batch, the last one's being the first: a permutation.

    Args:
        targets: (B,) class indices.

    Returns:
        (B,) int64 positions in the batch; a sample alone in its class, or without a label, has its own.

    >>> partners(torch.tensor([7, 2, 7, 7, 5, 2])).tolist()
    [2, 5, 3, 0, 4, 1]
    """
    order = targets.argsort(stable=True)
    grouped = targets[order]
    place = torch.arange(len(order), device=order.device)
    begins = torch.ones_like(grouped, dtype=torch.bool)
    begins[1:] = grouped[1:] != grouped[:-1]
    first = torch.where(begins, place, 0).cummax(0).values
    following = torch.where(begins.roll(-1), first, place + 1)
    following = torch.where(labelled(grouped), following, place)
    return torch.empty_like(order).scatter_(0, order, order[following])
