"""The engine: one training loop, validation, checkpoints, optimizers and schedules."""

from limbeck.engine.devices import make_fabric
from limbeck.engine.fit import Run, fit

__all__ = ["Run", "fit", "make_fabric"]
