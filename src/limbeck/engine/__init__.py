"""The engine: one training loop, evaluation, checkpoints, optimizers and schedules."""

from limbeck.engine.devices import make_fabric
from limbeck.engine.evaluate import Evaluation, evaluate
from limbeck.engine.fit import Run, fit

__all__ = ["Evaluation", "Run", "evaluate", "fit", "make_fabric"]
