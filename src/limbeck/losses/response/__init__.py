"""Losses between the outputs of teacher and student (response knowledge)."""

from limbeck.losses.response.between import jsd, skewed_kl, total_variation
from limbeck.losses.response.correlation import dist, mlkd
from limbeck.losses.response.curriculum import CTKD
from limbeck.losses.response.decoupled import dkd, nkd
from limbeck.losses.response.divergence import kd, reverse_kl, soft_cross_entropy
from limbeck.losses.response.independent import bounded_regression, sigmoid_kd
from limbeck.losses.response.labels import hard_label, logit_mse, probability_mse, wsld
from limbeck.losses.response.sampled import Sampled
from limbeck.losses.response.sparse import TopK
from limbeck.losses.response.standardization import standardize
from limbeck.losses.response.transformed import normkd, wttm

__all__ = [
    "CTKD",
    "Sampled",
    "TopK",
    "bounded_regression",
    "dist",
    "dkd",
    "hard_label",
    "jsd",
    "kd",
    "logit_mse",
    "mlkd",
    "nkd",
    "normkd",
    "probability_mse",
    "reverse_kl",
    "sigmoid_kd",
    "skewed_kl",
    "soft_cross_entropy",
    "standardize",
    "total_variation",
    "wsld",
    "wttm",
]
