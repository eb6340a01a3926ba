"""What of a training is kept for its end, or for the case that it is killed."""

from __future__ import annotations

from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.engine.devices.fabric import from_all
from limbeck.engine.saving.checkpoint import Checkpoint, Progressed
from limbeck.engine.settings import Settings
from limbeck.seeds import random_state


class Checkpoints(Callback):
    """Keeps the state after each epoch and every so many batches, whether a callback has stopped it, the best student.

    It is called after all other callbacks, so that what they did is in what is kept.

    Args:
        checkpoint: Writes and reads it.
        state: How far the training has come; the loop brings it forward.
        settings: What is asked for.
    """

    def __init__(self, checkpoint: Checkpoint, state: Progressed, settings: Settings) -> None:
        self.checkpoint, self.state, self.settings = checkpoint, state, settings

    def fit_start(self, training: Training) -> None:
        self._agree(training)

    def step_end(self, training: Training) -> None:
        if training.due(self.settings.saving.checkpoint_steps):
            self.state.sums, self.state.rng = training.look().sums, random_state()
            self.checkpoint.save(self.state)

    def validation_end(self, training: Training) -> None:
        task = training.scheme.task
        score = (training.record or {})[f"val_{task.monitor}"]
        if self.settings.keep == "best" and task.better(score, self.state.best):
            self.state.best = score
            self.checkpoint.save_best()

    def epoch_end(self, training: Training) -> None:
        self._agree(training)
        self.checkpoint.save(self.state)

    def _agree(self, training: Training) -> None:
        """A training that one process stops is stopped in all, and stays so when it is resumed."""
        self.state.stopped |= any(from_all(self.checkpoint.fabric, training.stopping))
