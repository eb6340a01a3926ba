"""Self-distillation: the deepest exit of a network teaches its shallower ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck.distillers.scheme import Scheme, TaskLoss, check_classifies, check_options, check_targets, refuse_teacher
from limbeck.distillers.task import task_value
from limbeck.errors import RequestError
from limbeck.losses import soft_cross_entropy
from limbeck.losses.precision import full_precision
from limbeck.models.networks.multi_exit import Exits
from limbeck.taps import call, evaluating
from limbeck.tasks import Task
from limbeck.types import Batch, Inputs, Step, TeacherOutput


class SelfDistiller(Scheme):
    """Be Your Own Teacher, for a network with an exit behind every stage; exit n of n is the deepest.

        loss = CE(z_n, y) + Σ_{i<n} [(1 − λ) · CE(z_i, y) + λ · soft-CE_T(z_i, z_n)] + β · Σ_{i<n−1} ‖A_i f_i − f_n‖₂

    z are logits, f the features before them; z_n and f_n carry no gradient where they teach. As in the authors'
    code the soft cross-entropy is not multiplied by T², and the norm is one over the whole (B, D) difference,
    not a mean over samples: it grows with the square root of the batch. A_i is one linear layer, made by
    `prepare`, so that the optimizer holds it from the first step. `predict`, by which checkpoints are chosen,
    is the ensemble: the mean of all exits' logits. The step's own logits are the deepest exit's.

    Args:
        student: A network whose forward pass returns `limbeck.models.networks.multi_exit.Exits`, such as byot_resnet18.
        soft_weight: λ in [0, 1].
        hint_weight: β; 0 leaves the hints and their layers out.
        temperature: T > 0 of the soft labels.
        task: What is learned; `Classification()` by default, whose loss is cross-entropy.
        task_loss: `task_loss(output, targets) -> Tensor` in place of that, where no task is given.
        inputs: What prepares the student's inputs; None leaves them as they are.

    Raises:
        RequestError: An option out of its range.

    Transfers: from the deepest exit: its probabilities and its features.
    Use: without a teacher, one network that may also answer early, at a shallower exit.
    Source: Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094; constants and the linear layers as in
        the authors' code for Self-Distillation: Towards Efficient and Compact Neural Networks, TPAMI 2021.
    """

    chosen = "ensemble"

    def __init__(
        self,
        student: nn.Module,
        *,
        soft_weight: float = 0.3,
        hint_weight: float = 0.03,
        temperature: float = 3.0,
        task: Task | None = None,
        task_loss: TaskLoss | None = None,
        inputs: nn.Module | None = None,
    ) -> None:
        super().__init__(student, inputs, task, task_loss)
        check_options(temperature=temperature, hint_weight=hint_weight)
        if not 0 <= soft_weight <= 1:
            raise RequestError(f"soft_weight must lie between 0 and 1, not {soft_weight}")
        self.soft_weight = soft_weight
        self.hint_weight = hint_weight
        self.temperature = temperature
        self.adapters = nn.ModuleDict()

    def forward(self, batch: Batch, teacher_output: TeacherOutput | None = None) -> Step:
        """One training step's loss, its parts named by exit: "task 4/4", "task 3/4", "soft 3/4", … "hint 1/4".

        Raises:
            RequestError: `prepare` has not made the linear layers of the hints.
        """
        exits = self._exits(batch.inputs)
        count = len(exits.logits)
        deepest = exits.logits[0]
        parts = {f"task {count}/{count}": task_value(self.task, deepest, batch.targets)}
        loss = parts[f"task {count}/{count}"]
        for exit in range(count - 1, 0, -1):
            name, logits = f"{exit}/{count}", exits.logits[count - exit]
            task = task_value(self.task, logits, batch.targets)
            soft = soft_cross_entropy(logits, deepest.detach(), temperature=self.temperature, scale=False).mean()
            parts |= {f"task {name}": task, f"soft {name}": soft}
            loss = loss + (1 - self.soft_weight) * task + self.soft_weight * soft
            if exit in self._hinted(count):
                hint = self._hint(exit, exits)
                parts[f"hint {name}"] = hint
                loss = loss + self.hint_weight * hint
        return Step(loss, deepest, {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def prepare(self, batch: Batch, teacher_output: TeacherOutput | None) -> None:
        """Make the linear layers of the hints, sized by one example; those that exist stay.

        Raises:
            RequestError: The student is no network with several exits, its features are no vectors, a label is out
                of range, or a teacher was given.
        """
        refuse_teacher(self, teacher_output)
        check_classifies(self)
        with evaluating(self):
            exits = self._exits(batch.inputs)
        check_targets(self.task, exits.logits[0], batch.targets)
        count, deepest = len(exits.logits), exits.features[0]
        for exit in self._hinted(count):
            feature = exits.features[count - exit]
            if feature.dim() != 2 or deepest.dim() != 2:
                raise RequestError(
                    f"hints need features (B, D), and exits {exit} and {count} give {tuple(feature.shape)} and "
                    f"{tuple(deepest.shape)}; flatten them, or set hint_weight to 0"
                )
            if _key(exit) not in self.adapters:
                self.adapters[_key(exit)] = nn.Linear(feature.shape[1], deepest.shape[1]).to(deepest)

    def predict(self, inputs: Inputs) -> Tensor:
        """The ensemble's logits (B, C): the mean of all exits'."""
        return _ensemble(self._exits(inputs))

    def predictions(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """Logits (B, C) of "exit 1/n", the shallowest, to "exit n/n", and of "ensemble"."""
        exits = self._exits(inputs)
        count = len(exits.logits)
        named = {f"exit {exit}/{count}": exits.logits[count - exit] for exit in range(1, count + 1)}
        return named | {"ensemble": _ensemble(exits)}

    def _exits(self, inputs: Inputs) -> Exits:
        exits = call(self.student, self.prepared(inputs))
        if not isinstance(exits, Exits) or len(exits.logits) < 2:
            raise RequestError(
                f"self-distillation needs a network that returns two Exits or more, and {type(self.student).__name__} "
                "does not; take byot_small, byot_resnet18 or another MultiExit"
            )
        return exits

    def _hinted(self, count: int) -> range:
        """The exits that get a hint: all but the deepest and the one next to it."""
        return range(1, count - 1) if self.hint_weight else range(0)

    def _hint(self, exit: int, exits: Exits) -> Tensor:
        if _key(exit) not in self.adapters:
            raise RequestError("the hints are not sized yet; call prepare(batch, None) before making the optimizer")
        adapted: Tensor = self.adapters[_key(exit)](exits.features[len(exits.features) - exit])
        return _distance(adapted, exits.features[0].detach())


@full_precision
def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(student - teacher)
    return distance


def _key(exit: int) -> str:
    return f"exit{exit}"


def _ensemble(exits: Exits) -> Tensor:
    return torch.stack(exits.logits).mean(0)
