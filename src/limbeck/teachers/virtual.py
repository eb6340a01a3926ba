"""A teacher without a network: it knows the labels, and doubts them a little."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.samples import known_labels
from limbeck.types import Batch, Signal, labelled


class VirtualTeacher:
    """The hand-made teacher of teacher-free distillation: a for the labelled class, (1 − a)/(C − 1) for each other.

    Its logits are the logarithms of these probabilities, so that a loss softens them as it does any teacher's: at
    T = 20, `Term(losses.kd, temperature=20)`, a is left with little more than its share. (The authors' code divides
    the probabilities themselves by T, not the logits.) Labels given as probabilities mix these distributions. Of a
    sample without a label (-100) it knows nothing: 1/C for every class. `Term(losses.kd, ignore_index=-100)` leaves
    such samples out.

    Args:
        classes: C, the number of classes.
        probability: a, above 1/C and below 1.

    Raises:
        RequestError: Fewer than two classes, or a probability outside its range.

    Source: Yuan et al., Revisiting Knowledge Distillation via Label Smoothing Regularization, CVPR 2020,
        arXiv 1909.11723; a 0.99, T 20.

    >>> batch = Batch(torch.zeros(1, 4), torch.tensor([1]), torch.tensor([0]))
    >>> VirtualTeacher(classes=3)(batch).logits.exp()
    tensor([[0.0050, 0.9900, 0.0050]])
    """

    def __init__(self, classes: int, *, probability: float = 0.99) -> None:
        if classes < 2:
            raise RequestError(f"a virtual teacher needs two classes or more, not {classes}")
        if not 1 / classes < probability < 1:
            raise RequestError(f"probability must lie between 1/{classes} and 1, not {probability}")
        self.classes = classes
        self.probability = probability
        self._checked = False

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"virtual {self.classes} {self.probability}".encode()).hexdigest()[:16]

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Signal:
        self._check(batch.targets)
        rest = (1 - self.probability) / (self.classes - 1)
        if batch.targets.is_floating_point():
            return Signal(((self.probability - rest) * batch.targets.float() + rest).log())
        logits = torch.full((batch.size, self.classes), math.log(rest), device=batch.targets.device)
        targets, known = known_labels(batch.targets)
        logits.scatter_(1, targets[:, None], math.log(self.probability))
        return Signal(logits if known is None else logits.where(known[:, None], -math.log(self.classes)))

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
