"""The student as it is every so many epochs, in files of their own beside the last one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.engine.devices.sharding import whole
from limbeck.engine.saving.checkpoint import save_student


@dataclass(frozen=True)
class Snapshots(Callback):
    """Writes PHASE-epochN.safetensors and its JSON file after every so many epochs.

    Attributes:
        folder: The run folder; None writes nothing.
        every: How many epochs lie between two files; None writes none.
        student: What is trained.
        about: What its JSON file says besides.
    """

    folder: Path | None
    every: int | None
    student: nn.Module
    about: Mapping[str, Any]

    def epoch_end(self, training: Training) -> None:
        """Write the student, where so many epochs are over that it is due; all processes call it."""
        epoch = training.epoch
        if self.folder is None or self.every is None or epoch % self.every:
            return
        state = whole(self.student.state_dict())
        if training.first:
            about = {**self.about, "epoch": epoch}
            save_student(self.folder, f"{training.phase}-epoch{epoch}", self.student, about, state)
