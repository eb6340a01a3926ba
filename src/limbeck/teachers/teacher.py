"""What a teacher is: something frozen that turns a batch into a `TeacherOutput`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from limbeck.types import Batch, TeacherOutput


@runtime_checkable
class Teacher(Protocol):
    """Anything that says what it knows about a batch.

    It is frozen: its parameters are in no optimizer, no checkpoint and no wrapper of the student.

    Attributes:
        fingerprint: Names the weights, taps and dtype, so it changes whenever an output could.
    """

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, batch: Batch) -> TeacherOutput: ...
