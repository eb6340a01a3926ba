"""Whatever a user gives as a teacher, as a `Teacher`: for the training samples, and for held-out ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from torch import nn

from limbeck.distillers import Scheme
from limbeck.errors import RequestError
from limbeck.teachers import CachedTeacher, FunctionTeacher, ModuleTeacher, StoredTeacher, Teacher
from limbeck.teachers.chosen import chosen_by

AnyTeacher = Teacher | nn.Module | Callable[..., Any]


def training_teacher(given: AnyTeacher | None, scheme: Scheme) -> Teacher | None:
    """Who is asked about training samples.

    Raises:
        RequestError: A network, of which no loss term reads anything.
    """
    taps, logits = scheme.teacher_taps, scheme.teacher_logits
    if isinstance(given, nn.Module) and not logits and not taps:
        raise RequestError("a teacher was given, and no loss term uses it; add a Term")
    if scheme.generates and isinstance(given, StoredTeacher | CachedTeacher):
        raise RequestError("no store knows the texts that the student writes itself: give the teacher's model")
    if scheme.takes_sparse and isinstance(given, StoredTeacher):
        return given.sparsely()
    return None if given is None else _as_teacher(given, scheme, taps, logits)


def held_out_teacher(given: AnyTeacher | None, guide: Teacher | None, scheme: Scheme) -> Teacher | None:
    """Who is asked about held-out samples: a stored or cached teacher knows the training samples alone.

    Raises:
        RequestError: The task has no labels, and nobody can be asked.
    """
    if given is not None:
        return _as_teacher(given, scheme)
    if scheme.task.labelled:
        return None
    if not isinstance(guide, ModuleTeacher | FunctionTeacher):
        raise RequestError(
            f"{scheme.task!r} is measured beside its teacher, and the given one knows the training samples alone: "
            "give val_teacher, such as the teacher's module"
        )
    return guide


def _as_teacher(given: AnyTeacher, scheme: Scheme, taps: Sequence[str] = (), logits: bool = True) -> Teacher:
    """A teacher of what was given: a module, a teacher already, or a function."""
    if not isinstance(given, nn.Module) and _is_teacher(given):
        return given
    output = chosen_by(scheme.task, scheme.classes) if logits else None
    if isinstance(given, nn.Module):
        return ModuleTeacher(given, taps, logits=logits, classes=scheme.classes, output=output)
    return FunctionTeacher(given, classes=scheme.classes, output=output)


def _is_teacher(given: Any) -> TypeGuard[Teacher]:
    # Looked up statically: to read a fingerprint is to read every weight.
    return inspect.getattr_static(given, "fingerprint", None) is not None
