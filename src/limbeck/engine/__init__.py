"""The engine: one training loop, evaluation, checkpoints, optimizers and schedules."""

from limbeck.engine.devices import make_fabric
from limbeck.engine.diagnosis import Diagnosis, diagnose
from limbeck.engine.evaluate import Evaluation, evaluate
from limbeck.engine.fit import Run, fit

__all__ = ["Diagnosis", "Evaluation", "Run", "diagnose", "evaluate", "fit", "make_fabric"]
