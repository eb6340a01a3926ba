"""What is measured of trained models: a teacher's diagnosis, and what early exits cost and give."""

from limbeck.measure.diagnosis import Diagnosis, diagnose
from limbeck.measure.evaluation import Evaluation, evaluate

__all__ = ["Diagnosis", "Evaluation", "diagnose", "evaluate"]
