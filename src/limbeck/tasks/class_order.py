"""A classifier's first answers as a teacher: logits, better than chance, its classes in the order of the labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.probabilities import are_probabilities, near_probabilities

DOUBT = 1e-3
"""The probability below which something is not put down to chance."""
MANY = 64
"""Numbers from which on all of them between 0 and 1 are no accident."""


def doubts(logits: Tensor, targets: Tensor, *, learned: bool = True) -> list[str]:
    """What should be said of a teacher's logits (B, C) beside the labels of the batch, a line each.

    Args:
        logits: The teacher's.
        targets: (B,) class indices, negative ones unknown, or (B, C) class probabilities.
        learned: Whether the labels mean something; where nothing learns them, they may be any.
    """
    labels = _labels(targets, logits)
    if labels is None:
        return []
    known = labels >= 0
    answers, wanted = logits.argmax(-1)[known].tolist(), labels[known].tolist()
    return _others_order(answers, wanted) or (_chance(answers, wanted) if learned else [])


def refuse_probabilities(logits: Tensor) -> None:
    """Raise RequestError for a teacher that ends in a softmax."""
    if are_probabilities(logits):
        raise RequestError(
            "the teacher ends in probabilities (rows ≥ 0 of sum 1), and losses take logits: leave its softmax out, or "
            "give FunctionTeacher(teacher, probabilities=True)"
        )
    if unit := near_probabilities(logits):
        raise RequestError(
            f"the teacher ends in what look like rounded probabilities ({unit}), and losses take logits: give what "
            "stands before them, or FunctionTeacher(teacher, probabilities=True) if they are probabilities"
        )


def is_behind_sigmoid(logits: Tensor) -> bool:
    """Whether so many logits all lie between 0 and 1 that it is no accident."""
    return logits.numel() >= MANY and bool(((logits >= 0) & (logits <= 1)).all())


def behind_sigmoid(logits: Tensor) -> list[str]:
    """A line for a teacher whose logits all lie between 0 and 1."""
    if not is_behind_sigmoid(logits):
        return []
    return [
        "gives numbers from 0 to 1 alone, as behind a sigmoid, of which a softmax makes nearly equal probabilities; "
        "give what stands before it"
    ]


def _labels(targets: Tensor, logits: Tensor) -> Tensor | None:
    """(B,) classes of the labels, negative ones unknown; None where the targets are no classes."""
    if logits.dim() != 2 or len(logits) != len(targets):
        return None
    if targets.dim() == 1 and not targets.is_floating_point():
        return targets
    mixed = targets.dim() == 2 and targets.shape == logits.shape and targets.is_floating_point()
    return targets.argmax(-1) if mixed and are_probabilities(targets) else None


def _chance(answers: Sequence[int], labels: Sequence[int]) -> list[str]:
    """A line for a teacher that is right no more often than by chance, and far less often than a useful one.

    Chance is Σ p_c q_c, where p_c is the share of answer c and q_c that of label c; so one that always says the same
    is not taken for right where that class is frequent. A useful one is right on at least half of what chance leaves.
    """
    samples, right = len(labels), sum(map(int.__eq__, answers, labels))
    said, wanted = Counter(answers), Counter(labels)
    chance = sum(said[c] * wanted[c] for c in wanted) / samples**2 if samples else 1.0
    by_chance = 1 - _at_most(right - 1, samples, chance)
    if by_chance < 0.01 or _at_most(right, samples, (1 + chance) / 2) >= DOUBT:
        return []
    return [
        f"is right on {right} of the first {samples} samples, no more than by chance: is it trained, are its weights "
        "loaded, are its inputs prepared as in its training, are its classes in the order of the labels?"
    ]


def _others_order(answers: Sequence[int], labels: Sequence[int]) -> list[str]:
    """A line for a teacher whose answers follow the labels under other numbers.

    Each sample's answer is foretold from those to the other samples of its label, where more than half of them agree.
    """
    pairs = Counter(zip(labels, answers, strict=True))
    sizes = Counter(labels)
    often = max(Counter(answers).values(), default=0) / max(1, len(answers))
    foretold = sum(
        count
        for (label, answer), count in pairs.items()
        if answer != label and sizes[label] > 1 and 2 * (count - 1) > sizes[label] - 1
    )
    asked = sum(size for size in sizes.values() if size > 1)
    follows = 2 * foretold > asked and 1 - _at_most(foretold - 1, asked, often) < DOUBT
    moved = {label: answer for (label, answer), n in pairs.items() if label != answer and n == sizes[label] > 2}
    swapped = len(moved) > 1 and set(moved.values()) == set(moved)
    shifts = Counter(answer - label for label, answer in zip(labels, answers, strict=True) if answer != label)
    shifted = max(shifts.values(), default=0)
    shifts_all = 2 * shifted > len(labels) and (1 - _at_most(shifted - 1, len(labels), often)) * len(sizes) < DOUBT
    if not (follows or swapped or shifts_all):
        return []
    wrong = [(label, answer) for (label, answer), n in pairs.most_common() if label != answer and 2 * n > sizes[label]]
    shown = ", ".join(f"{answer} for label {label}" for label, answer in sorted(wrong)[:3])
    return [
        f"seems to know the classes in another order: it answers {shown}{', …' if len(wrong) > 3 else ''}; bring its "
        "logits into the order of the labels, as by logits[:, order]"
    ]


def _at_most(hits: int, samples: int, chance: float) -> float:
    """P(X ≤ hits) of a binomial distribution."""
    if hits < 0:
        return 0.0
    if hits >= samples or chance <= 0:
        return 1.0
    if chance >= 1:
        return 0.0
    logs = (
        math.lgamma(samples + 1) - math.lgamma(k + 1) - math.lgamma(samples - k + 1)
        + k * math.log(chance) + (samples - k) * math.log1p(-chance)
        for k in range(hits + 1)
    )  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))
