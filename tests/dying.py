"""A teacher that is killed in the middle of a training, for what is resumed afterwards."""

from __future__ import annotations

from torch import nn

from limbeck import Batch, ModuleTeacher, TeacherOutput


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


class Dies:
    """A teacher that is killed at one of its answers."""

    def __init__(self, network: nn.Module, at: float) -> None:
        self.teacher, self.at, self.asked = ModuleTeacher(network), at, 0
        self.fingerprint = self.teacher.fingerprint

    def __call__(self, batch: Batch) -> TeacherOutput:
        self.asked += 1
        if self.asked > self.at:
            raise Killed
        return self.teacher(batch)
