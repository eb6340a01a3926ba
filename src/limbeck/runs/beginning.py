"""What a run says first: what is about to happen, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.data import DataSet
from limbeck.errors import counted
from limbeck.models import parameter_count
from limbeck.recipes import schema
from limbeck.runs.teachers import Candidate


def beginning(
    recipe: schema.Recipe,
    data: DataSet,
    found: Sequence[Candidate],
    student: nn.Module,
    *,
    baseline: bool,
    retrain: bool,
) -> str:
    """The samples, the teachers and where they come from, and the students, in a line.

    Args:
        recipe: What is carried out.
        data: Its data.
        found: Its teachers, not trained yet.
        student: The network.
        baseline: Whether there is a baseline.
        retrain: Whether a teacher is trained that an earlier run has kept.
    """
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    samples = ", ".join(f"{len(split):,} {name}" for name, split in splits.items() if split is not None)
    teachers = [f"{one.name} of {_size(one.module)} {_source(one, retrain)}" for one in found]
    students = (
        f"{'baseline and student' if baseline else 'student'} of {_size(student)}, {counted(recipe.epochs, 'epoch')}"
    )
    return f"{recipe.title}: {samples} samples; {'; '.join([*teachers, students])}"


def _size(network: nn.Module) -> str:
    return counted(parameter_count(network), "parameter")


def _source(one: Candidate, retrain: bool) -> str:
    if one.kept is None:
        return "as given"
    if one.is_kept() and not retrain:
        return "kept by an earlier run"
    return f"to be trained, {counted(one.spec.epochs or 0, 'epoch')}"
