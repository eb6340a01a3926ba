"""Which classes a term on logits compares where teacher and student have different numbers of them."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses import Sampled, TopK
from limbeck.types import labelled

PADDING = 0.05
"""Two vocabularies that differ by more than this share of the larger one differ by more than padding."""


def common_vocabulary(student: Tensor, teacher: Tensor, targets: Tensor) -> int:
    """How many classes, the first ones, are the same in two language models of one family.

    Such models round the size of one vocabulary up in different ways, so that entries behind it stand for no token:
    they are in no label and get no probability. That is assumed for logits (B, L, C) of sequences whose C differ by
    5 % or less, and for nothing else: 10 and 100 classes of a classifier are different classes.

    Args:
        student: Logits of a batch.
        teacher: Logits of the same batch, of another C.
        targets: Its labels.

    Raises:
        RequestError: It cannot be padding, or a label lies in it.
    """
    sizes = class_count(student), class_count(teacher)
    common = min(sizes)
    of_sequences = student.dim() == teacher.dim() == 3 and student.shape[:2] == teacher.shape[:2]
    if not of_sequences or max(sizes) - common > PADDING * max(sizes):
        raise RequestError(
            f"the teacher knows {sizes[1]} classes and the student {sizes[0]}; build both with the data set's number "
            "of classes, say that the first N are the same on both sides (common_classes=N), or of several outputs "
            "which one is meant (output=)"
        )
    if not targets.is_floating_point():
        behind = targets[(targets >= common) & labelled(targets)]
        if behind.numel():
            raise RequestError(
                f"the teacher knows {sizes[1]} classes and the student {sizes[0]}, and the label "
                f"{int(behind[0])} lies behind the {common} that both know: that is no padding; take models of one "
                "vocabulary"
            )
    return common


def check_indices(student: Tensor, teacher: TopK | Sampled) -> None:
    """Raise RequestError where a sparse teacher names a class that the student does not have."""
    highest, classes = int(teacher.indices.max()), class_count(student)
    if highest >= classes:
        raise RequestError(
            f"the teacher's outputs name the class {highest}, and the student has {classes}: take a student of the "
            "vocabulary that they were stored with"
        )


def described(student: Tensor, teacher: Tensor, common: int) -> str:
    """What is said of vocabularies that were cut to their common part."""
    cut = f"the teacher has {teacher.shape[-1]} classes and the student {student.shape[-1]}, "
    line = f"{cut}taken for one vocabulary with padding behind it: terms on logits compare the first {common}"
    if teacher.shape[-1] == common:
        return line
    some = teacher.detach().flatten(0, -2)[:256].float()  # a vocabulary is large
    share = float(torch.softmax(some, -1)[:, :common].sum(-1).mean())
    return f"{line}, on which the teacher puts {share:.2%} of its probability"


def class_count(logits: Tensor) -> int:
    """C of logits (B, C), (B, L, C) or (B, C, H, W)."""
    return logits.shape[_axis(logits)]


def first_classes(logits: Tensor, classes: int) -> Tensor:
    """The logits of the first classes of (B, C), (B, L, C) or (B, C, H, W): their softmax is normalised over these."""
    return logits.narrow(_axis(logits), 0, classes)


def _axis(logits: Tensor) -> int:
    return 1 if logits.dim() == 4 else -1
