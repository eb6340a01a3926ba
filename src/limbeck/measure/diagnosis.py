"""What a teacher has to teach: how right, soft and honest its answers are, and whether it has memorised them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.engine.batches.source import Source
from limbeck.errors import RequestError
from limbeck.losses import Sampled, TopK
from limbeck.losses.shapes import check_temperature
from limbeck.measure.evaluation import evaluate
from limbeck.tasks.labels import hard_labels, with_labels
from limbeck.teachers import Teacher

MOST = 10_000
"""So many samples of each side are asked about at most: a share of them is known to half a point."""
MEMORISED = 0.10
"""A memorised teacher answers right by memory on more than this share of the training samples."""
OF_ITS_ERRORS = 0.5
"""… and its error on held-out data shrinks by more than this share on the training data."""


@dataclass(frozen=True)
class Diagnosis:
    """Figures of one teacher before it teaches.

    Attributes:
        samples: How many training samples it was asked about, as the student sees them.
        train_accuracy: Share of them whose label is its first choice; only samples with a label count, here and below.
        held_out: Where the held-out figures come from: "validation", or "test" without a validation split.
        held_out_accuracy: Share of held-out samples whose label is its first choice.
        calibration_error: Expected calibration error on held-out data, 15 bins of equal width, at temperature 1.
        temperature: T, at which the soft labels are taken.
        entropy: Mean entropy of the soft labels softmax(z/T) on the training samples, in nats.
        held_out_entropy: The same on held-out data.
        maximum_entropy: What the entropy can be at most, the logarithm of the number of classes.
    """

    samples: int
    train_accuracy: float
    held_out: str
    held_out_accuracy: float
    calibration_error: float
    temperature: float
    entropy: float
    held_out_entropy: float
    maximum_entropy: float

    @property
    def memorised(self) -> bool:
        """Whether the teacher has memorised its training set: g > 0.10 and g > e/2.

        e is its error on held-out data, and g how much smaller its error on training data is. Were a share m of the
        training samples memorised, and the others answered as held-out ones are, then g = m·e: the first
        condition asks that g, the answers that are right by memory alone, is more than one in ten, and the second that
        m is more than a half. A small e, as on easy data, never fulfils the first; a teacher that is still learning
        both sets does not fulfil the second. Temperature plays no part: it softens what is memorised too.
        """
        error = 1 - self.held_out_accuracy
        gap = self.train_accuracy - self.held_out_accuracy
        return gap > MEMORISED and gap > OF_ITS_ERRORS * error

    @property
    def summary(self) -> str:
        """The figures as one line."""
        return (
            f"the teacher is right on {self.train_accuracy:.1%} of the training and {self.held_out_accuracy:.1%} of "
            f"the {self.held_out} data (calibration error {self.calibration_error:.3f} there); its soft labels "
            f"have a mean entropy of {self.entropy:.2f} nats at temperature {self.temperature:g}, of at most "
            f"{self.maximum_entropy:.2f}"
        )

    @property
    def warning(self) -> str | None:
        """One line with figures and remedy for a teacher that has memorised its training set; None for any other."""
        if not self.memorised:
            return None
        return (
            f"the teacher has memorised its training set: it is right on {self.train_accuracy:.1%} of it and on "
            f"{self.held_out_accuracy:.1%} of the {self.held_out} data, so its soft labels, whose mean entropy is "
            f"{self.entropy:.2f} nats at temperature {self.temperature:g}, of at most {self.maximum_entropy:.2f}, "
            "mostly repeat the labels; train it with augmentation, weight decay or fewer epochs, or distil on "
            "augmented views"
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, and what follows from them: "memorised", and "warning", a line or None."""
        return {**asdict(self), "memorised": self.memorised, "warning": self.warning}


def diagnose(
    teacher: Teacher,
    train: Iterable[Any],
    held_out: Iterable[Any],
    *,
    cached: Teacher | None = None,
    temperature: float = 1.0,
    name: str = "test",
    most: int = MOST,
    device: torch.device | str = "cpu",
) -> Diagnosis:
    """Ask a teacher about training and held-out samples, once about each.

    Args:
        teacher: Who is asked.
        train: Batches, or pairs (inputs, targets), as the student will see them; shuffled if there are more than
            `most` samples.
        held_out: Likewise, of data that the teacher has not been trained on.
        cached: The same teacher with its outputs for the training samples in memory.
        temperature: T of the soft labels, that of the term that reads them.
        name: What the held-out data is, "validation" or "test".
        most: From each side no more samples than this.
        device: Where the batches go.

    Raises:
        RequestError: A loader without a sample or without a label, a teacher without logits or with some of them
            (`limbeck.losses.TopK`, `Sampled`), a temperature that is not above 0.
    """
    check_temperature(temperature)
    logits, labels = _answers(cached or teacher, train, most, torch.device(device))
    new_logits, new_labels = _answers(teacher, held_out, most, torch.device(device))
    known, own = with_labels(logits, labels)
    new_known, new_own = with_labels(new_logits, new_labels)
    accuracy = int((known.argmax(-1) == own).sum()) / len(own)
    classes = logits.shape[1]
    return Diagnosis(
        samples=len(labels),
        train_accuracy=accuracy,
        held_out=name,
        held_out_accuracy=int((new_known.argmax(-1) == new_own).sum()) / len(new_own),
        calibration_error=evaluate(nn.Identity(), [(new_known, new_own)])["calibration_error"],
        temperature=float(temperature),
        entropy=_entropy(logits / temperature),
        held_out_entropy=_entropy(new_logits / temperature),
        maximum_entropy=math.log(classes),
    )


@torch.no_grad()
def _answers(teacher: Teacher, loader: Iterable[Any], most: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The teacher's logits (N, C) in fp32 on a loader's first N ≤ `most` samples, and their labels (N,)."""
    answers, labels, asked = [], [], 0
    for batch in Source(loader, device).starting_at():
        logits = teacher(batch).output
        if logits is None:
            raise RequestError("this teacher gives no logits, so it has no soft labels to diagnose")
        if isinstance(logits, TopK | Sampled):
            raise RequestError("of a teacher that gives some classes alone no entropy is known; give all its logits")
        answers.append(logits.to(torch.float32, copy=True))  # a function may give the same memory each time
        labels.append(hard_labels(batch.targets))
        asked += batch.size
        if asked >= most:
            break
    if not answers:
        raise RequestError("nothing to diagnose: the loader gives no batch at all")
    return torch.cat(answers)[:most], torch.cat(labels)[:most]


def _entropy(logits: Tensor) -> float:
    """The mean of −Σ p log p, in nats."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean().item()
