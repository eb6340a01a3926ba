"""Deep mutual learning: several students that teach each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from limbeck.distillers.scheme import Scheme, TaskLoss, check_classifies, check_options, check_targets, refuse_teacher
from limbeck.distillers.task import task_value
from limbeck.errors import RequestError
from limbeck.losses import kd
from limbeck.taps import call, evaluating
from limbeck.taps.wrappers import unwrapped
from limbeck.tasks import Task
from limbeck.types import Batch, Inputs, Step, TeacherOutput


class MutualDistiller(Scheme):
    """Peers that learn from the labels and from one another.

        loss = Σ_i [task_weight · CE(z_i, y) + weight · 1/(n−1) · Σ_{j≠i} T² · KL(p_j ‖ p_i)]

    p = softmax(z / T); p_j carries no gradient. All peers step together on one forward pass each, where the paper
    lets each see those that have just stepped. The student to ship, whose logits are the step's and `predict`'s,
    is the first peer; `peers` holds all when training is done.

    Args:
        peers: Two networks or more of one number of classes; they may differ in form, and should in their start.
        weight: Weight of what the others say, the mean over them.
        temperature: T > 0.
        task_weight: Weight of the labels.
        task: What is learned; `Classification()` by default, whose loss is cross-entropy.
        task_loss: `task_loss(output, targets) -> Tensor` in place of that, where no task is given.
        inputs: What prepares the inputs of all peers; None leaves them as they are.

    Raises:
        RequestError: Fewer than two peers, one of them given twice, or an option out of its range.

    Transfers: what each peer predicts.
    Use: without a trained teacher, where there is memory to train several networks together.
    Source: Zhang et al., Deep Mutual Learning, CVPR 2018, arXiv:1706.00384; recommended weights and T 1.
    """

    chosen = "peer 1"

    def __init__(
        self,
        peers: Sequence[nn.Module],
        *,
        weight: float = 1.0,
        temperature: float = 1.0,
        task_weight: float = 1.0,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
        inputs: nn.Module | None = None,
    ) -> None:
        if len(peers) < 2:
            raise RequestError(f"mutual learning needs two peers or more, not {len(peers)}")
        if len(set(map(unwrapped, peers))) < len(peers):
            raise RequestError("one module is given twice as a peer; give each its own, such as copy.deepcopy(student)")
        check_options(temperature=temperature, weight=weight, task_weight=task_weight)
        super().__init__(peers[0], inputs, task, task_loss)
        self.others = nn.ModuleList(map(unwrapped, peers[1:]))
        self.weight = weight
        self.temperature = temperature
        self.task_weight = task_weight

    @property
    def peers(self) -> Sequence[nn.Module]:
        """All peers, the student first."""
        return (self.student, *self.others)

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        """One training step's loss, its parts named by peer: "task 1", "mutual 1", "task 2", …"""
        logits = self._logits(batch.inputs)
        loss = logits[0].new_zeros(())
        parts: dict[str, Tensor] = {}
        for number, own in enumerate(logits, start=1):
            others = [z.detach() for z in logits if z is not own]
            task = task_value(self.task, own, batch.targets)
            said = torch.stack([kd(own, z, temperature=self.temperature).mean() for z in others]).mean()
            parts |= {f"task {number}": task, f"mutual {number}": said}
            loss = loss + self.task_weight * task + self.weight * said
        return Step(loss, logits[0], {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Check that all peers fit the labels and each other.

        Raises:
            RequestError: Peers of different numbers of classes, a label out of range, or a teacher given.
        """
        refuse_teacher(self, teacher_output)
        check_classifies(self)
        with evaluating(self):
            logits = self._logits(batch.inputs)
        shapes = [tuple(z.shape) for z in logits]
        if len(set(shapes)) > 1:
            raise RequestError(f"the peers' logits have shapes {', '.join(map(str, shapes))}; all must be the same")
        check_targets(self.task, logits[0], batch.targets)

    def predictions(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """Logits (B, C) of "peer 1", the student, to "peer n", and of "ensemble": log of the mean probability."""
        logits = self._logits(inputs)
        voices = torch.stack([z.float().log_softmax(-1) for z in logits])
        named = {f"peer {number}": z for number, z in enumerate(logits, start=1)}
        return named | {"ensemble": voices.logsumexp(0) - math.log(len(logits))}

    def _logits(self, inputs: Inputs) -> list[Tensor]:
        inputs = self.prepared(inputs)
        return [self.answer(call(peer, inputs)) for peer in self.peers]
