"""A teacher's first answers: whether they are steady, and what the task says of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.tasks import Task
from limbeck.teachers import EnsembleTeacher, Teacher
from limbeck.types import Batch, TeacherOutput, tensors_of

STEADY = 0.05
"""How far, relative to their spread, answers may lie from those to the same samples asked again."""
EXACT = 1e-4
"""How far they may lie from those to the same batch, asked again."""


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


def check_answers(
    teacher: Teacher, batch: Batch, teacher_output: TeacherOutput, task: Task, *, labelled: bool
) -> list[str]:
    """Look at a teacher's answers to a batch, and ask it about half of that again.

    Args:
        teacher: Who gave them.
        batch: The samples.
        teacher_output: The answers.
        task: What is learned.
        labelled: Whether the labels mean something; where nothing learns them, they may be any.

    Returns:
        What should be said of it, a line each.

    Raises:
        RequestError: It gives probabilities, or NaN.
    """
    output = _dense(teacher_output)
    if output is not None and bool(torch.isnan(output).any()):
        raise RequestError("the teacher gives NaN for the first batch; look at its weights, and at its inputs")
    notes = [] if output is None else task.check_teacher(task.output(output), batch.targets, learned=labelled)
    notes = [*_unsteady(teacher, batch, teacher_output), *notes]
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
    output = _dense(teacher_output)
    return output if output is not None else next(iter(teacher_output.features.values()), None)


def _dense(teacher_output: TeacherOutput) -> Tensor | None:
    """The output, where it is one tensor: sparse ones are stored, and were looked at before."""
    return teacher_output.output if isinstance(teacher_output.output, Tensor) else None
