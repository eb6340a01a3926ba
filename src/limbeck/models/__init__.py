"""Networks of the recipes, and what is asked of any model: its size, its weights, its input.

Each network is a function `name(*, input_shape, classes, **options) -> nn.Module`.
"""

from limbeck.models.cnn import cnn
from limbeck.models.measure import multiply_adds, parameter_count
from limbeck.models.mlp import mlp
from limbeck.models.preprocess import Preprocess, preprocess
from limbeck.models.weights import load_weights, read_weights

NETWORKS = ("cnn", "mlp")
"""The names that a recipe can give as `model`."""

__all__ = [
    "NETWORKS",
    "Preprocess",
    "cnn",
    "load_weights",
    "mlp",
    "multiply_adds",
    "parameter_count",
    "preprocess",
    "read_weights",
]
