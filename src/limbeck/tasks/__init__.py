"""Tasks: what is learned, and by which figure it is judged. Each is an object that a scheme owns."""

from limbeck.tasks.classification import Classification
from limbeck.tasks.embedding import Embedding
from limbeck.tasks.language import LanguageModelling
from limbeck.tasks.metrics import Metrics
from limbeck.tasks.multi_label import MultiLabel
from limbeck.tasks.positions import Segmentation, TokenClassification
from limbeck.tasks.regression import Regression
from limbeck.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "multi-label": MultiLabel,
    "regression": Regression,
    "token-classification": TokenClassification,
    "language-modelling": LanguageModelling,
    "segmentation": Segmentation,
    "embedding": Embedding,
}
"""The tasks that a recipe can name."""

__all__ = [
    "TASKS",
    "Classification",
    "Embedding",
    "LanguageModelling",
    "Metrics",
    "MultiLabel",
    "Regression",
    "Segmentation",
    "Task",
    "TokenClassification",
]
