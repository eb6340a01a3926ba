"""A teacher without a network: it knows the labels, and doubts them a little."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import torch
from torch import Tensor

from limbeck.errors import RequestError, unknown
from limbeck.losses.samples import known_labels
from limbeck.types import Batch, TeacherOutput, labelled

Softens = Literal["logarithms", "probabilities"]
"""What of its probabilities a temperature divides."""


class VirtualTeacher:
    """The hand-made teacher of teacher-free distillation: a for the labelled class, (1 − a)/(C − 1) for each other.

    Its logits are the logarithms of these probabilities, so that a loss softens them as it does any teacher's: at
    T = 20 a is left with little more than its share. The authors' code takes the probabilities themselves for logits,
    softmax(u / T), which at T = 20 is still nearer to even: `softens="probabilities"`. There the student is not
    softened and nothing is multiplied by T²: `Term(losses.kd, weight=0.1, temperature=1, teacher_temperature=20,
    scale=False)` beside 0.9 of the labels, which is the code's multiplier 100 of a mean over 100 classes too. Labels
    given as probabilities mix these distributions. Of a sample without a label (-100) it knows nothing: 1/C for every
    class. `Term(losses.kd, ignore_index=-100)` leaves such samples out.

    Args:
        classes: C, the number of classes.
        probability: a, above 1/C and below 1.
        softens: What its logits are, and a temperature divides: "logarithms" or "probabilities".

    Raises:
        RequestError: Fewer than two classes, a probability outside its range, or another value of `softens`.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020,
        arXiv 1909.11723; a 0.99, T 20.

    >>> batch = Batch(torch.zeros(1, 4), torch.tensor([1]), torch.tensor([0]))
    >>> VirtualTeacher(classes=3)(batch).output.exp()
    tensor([[0.0050, 0.9900, 0.0050]])
    """

    def __init__(self, classes: int, *, probability: float = 0.99, softens: Softens = "logarithms") -> None:
        if classes < 2:
            raise RequestError(f"a virtual teacher needs two classes or more, not {classes}")
        if not 1 / classes < probability < 1:
            raise RequestError(f"probability must lie between 1/{classes} and 1, not {probability}")
        if softens not in get_args(Softens):
            raise unknown("value of softens", softens, get_args(Softens))
        self.classes = classes
        self.softens = softens
        self.probability = probability
        self._checked = False

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"virtual {self.classes} {self.probability} {self.softens}".encode()).hexdigest()[:16]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TeacherOutput:
        self._check(batch.targets)
        rest = (1 - self.probability) / (self.classes - 1)
        if batch.targets.is_floating_point():
            probabilities = (self.probability - rest) * batch.targets.float() + rest
        else:
            probabilities = torch.full((batch.size, self.classes), rest, device=batch.device)
            targets, known = known_labels(batch.targets, self.classes)
            probabilities.scatter_(1, targets[:, None], self.probability)
            if known is not None:
                probabilities = probabilities.where(known[:, None], 1 / self.classes)
        if self.softens == "logarithms":
            return TeacherOutput(probabilities.log())
        # Less a constant, which no softmax sees: logits that are probabilities are taken for an error elsewhere.
        return TeacherOutput(probabilities - self.probability)

    def _check(self, targets: Tensor) -> None:
        # On a GPU once: it would have to wait each time.
        if self._checked and targets.device.type != "cpu":
            return
        mixed = targets.is_floating_point()
        if targets.dim() != 1 + mixed or (mixed and targets.shape[1] != self.classes):
            raise RequestError(
                f"a virtual teacher of {self.classes} classes needs targets (B,) of indices or (B, {self.classes}) of "
                f"probabilities, not {tuple(targets.shape)} of {targets.dtype}"
            )
        if not mixed and len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.classes:
            wrong = targets[((targets < 0) & labelled(targets)) | (targets >= self.classes)]
            if len(wrong):
                raise RequestError(f"label {int(wrong[0])} is out of range: there are {self.classes} classes")
        self._checked = True
