"""A teacher's first answers: whether they are steady, are logits, and know the labels in their order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.probabilities import are_probabilities, near_probabilities
from limbeck.teachers import EnsembleTeacher, Teacher
from limbeck.types import Batch, TeacherOutput, tensors_of

STEADY = 0.05
"""How far, relative to their spread, answers may lie from those to the same samples asked again."""
EXACT = 1e-4
"""How far they may lie from those to the same batch, asked again."""
DOUBT = 1e-3
"""The probability below which something is not put down to chance."""
MANY = 64
"""Numbers from which on all of them between 0 and 1 are no accident."""


def first_answers(teacher: Teacher, batch: Batch) -> TeacherOutput:
    """What a teacher says about the first batch.

    Raises:
        RequestError: It writes into the batch, which the student is to read; those of limbeck get a copy.
    """
    before = batch.changed(Tensor.clone)
    teacher_output = teacher(batch)
    for now, was in zip(tensors_of(batch.inputs), tensors_of(before.inputs), strict=True):
        if not torch.allclose(now, was, rtol=0, atol=0, equal_nan=True):
            raise RequestError(
                "the teacher writes into its inputs, which the student reads too: let it begin with a copy, x.clone()"
            )
    return teacher_output


def check_answers(teacher: Teacher, batch: Batch, teacher_output: TeacherOutput, *, labelled: bool) -> list[str]:
    """Look at a teacher's answers to a batch, and ask it about half of that again.

    Args:
        teacher: Who gave them.
        batch: The samples.
        teacher_output: The answers.
        labelled: Whether the labels mean something; where nothing learns them, they may be any.

    Returns:
        What should be said of it, a line each.

    Raises:
        RequestError: It gives probabilities, or NaN.
    """
    logits = teacher_output.output
    notes: list[str] = []
    if logits is not None:
        refuse_probabilities(logits)
        if bool(torch.isnan(logits).any()):
            raise RequestError("the teacher gives NaN for the first batch; look at its weights, and at its inputs")
        if logits.numel() >= MANY and bool(((logits >= 0) & (logits <= 1)).all()):
            notes.append(
                "gives numbers from 0 to 1 alone, as behind a sigmoid, of which a softmax makes nearly equal "
                "probabilities; give what stands before it"
            )
    notes += _unsteady(teacher, batch, teacher_output)
    labels = None if logits is None else _labels(batch, logits)
    if logits is not None and labels is not None:
        known = labels >= 0
        answers, wanted = logits.argmax(-1)[known].tolist(), labels[known].tolist()
        notes += _others_order(answers, wanted) or (_chance(answers, wanted) if labelled else [])
    how = getattr(teacher, "notes", [])  # read last: what it answers half of the batch may show more
    return [f"the teacher {note}" for note in (*how, *notes)]


def check_mixing(teacher: Teacher, temperatures: Sequence[float]) -> list[str]:
    """A line for an averaged ensemble whose probabilities are read at another temperature than they are mixed at."""
    if not isinstance(teacher, EnsembleTeacher) or teacher.mix == "logits":
        return []
    others = [one for one in temperatures if one != teacher.temperature]
    if not others:
        return []
    read = ", ".join(f"{one:g}" for one in others)
    one = "" if len(set(temperatures)) > 1 else f"EnsembleTeacher(…, temperature={others[0]:g}) or "
    return [
        f"the averaged ensemble mixes probabilities at temperature {teacher.temperature:g}, and terms read them at "
        f"{read}, where the mean is another; {one}mix='logits' (in a recipe ensemble: logits) mends that"
    ]


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


def check_steady(teacher: Teacher, batch: Batch) -> list[str]:
    """How a teacher is run, and whether its answers change, a line each: of one whose outputs are to be stored."""
    changes = _unsteady(teacher, batch, teacher(batch))
    return [f"the teacher {note}" for note in (*getattr(teacher, "notes", []), *changes)]


@torch.no_grad()
def _unsteady(teacher: Teacher, batch: Batch, teacher_output: TeacherOutput) -> list[str]:
    """A line for a teacher whose answers change when half of the batch is asked about by itself, or again.

    Batch statistics show in the first, noise in both; small differences in the first alone may be those of rounding,
    or of a model that is quantised by the batch.
    """
    half = (batch.size + 1) // 2
    try:
        again = teacher(batch.first(half))
    except Exception:  # it may take batches of one size alone
        half, again = batch.size, teacher(batch)
    change = _change(teacher_output, again, half)
    if change <= EXACT:
        return []
    if change <= STEADY and _change(again, teacher(batch.first(half)), half) <= EXACT:
        return []
    return [
        "gives other answers when asked again about the same samples by themselves: something in it is in training "
        "mode, or draws random numbers; put all that it runs in eval mode, and trace or export anew what was traced or "
        "exported in training mode"
    ]


def _change(one: TeacherOutput, other: TeacherOutput, samples: int) -> float:
    """How far two answers to the first samples lie apart, relative to their spread."""
    first, second = _answers(one), _answers(other)
    if first is None or second is None:
        return 0.0
    first, second = first[:samples].float(), second[:samples].float()
    finite = torch.isfinite(first) & torch.isfinite(second)
    first, second = first[finite], second[finite]
    apart = float((first - second).abs().mean()) if first.numel() > 1 else 0.0
    return apart / max(float(first.std()), torch.finfo(torch.float32).tiny) if apart else 0.0


def _answers(teacher_output: TeacherOutput) -> Tensor | None:
    return (
        teacher_output.output
        if teacher_output.output is not None
        else next(iter(teacher_output.features.values()), None)
    )


def _labels(batch: Batch, logits: Tensor) -> Tensor | None:
    """(B,) classes of the labels, negative ones unknown; None where the targets are no classes."""
    targets = batch.targets
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
