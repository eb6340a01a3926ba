"""Distillation losses: pure functions `loss(student, teacher, *, options)`, mathematics only.

Each returns one value a sample, (B,), where that has a meaning, and a scalar otherwise; computes in fp32;
and is 0, or at its known minimum, when the student equals the teacher. Those that train or remember something
are modules with the same call, made from the shapes of the tensors by `for_shapes`.
"""

from limbeck.losses.contrastive import CRD
from limbeck.losses.feature import (
    MGD,
    VID,
    FactorTransfer,
    Paraphraser,
    ReviewKD,
    activation_boundary,
    attention,
    channel,
    cosine,
    factor,
    fsp,
    l1,
    margin_relu,
    mse,
    negative_mean,
    nst,
    pearson,
    simkd,
    smooth_l1,
    srrl,
)
from limbeck.losses.precision import own_precision
from limbeck.losses.relation import channel_correlation, correlation, pkt, rkd, similarity
from limbeck.losses.response import (
    Sampled,
    TopK,
    bounded_regression,
    dist,
    dkd,
    hard_label,
    jsd,
    kd,
    logit_mse,
    mlkd,
    nkd,
    probability_mse,
    reverse_kl,
    sigmoid_kd,
    skewed_kl,
    soft_cross_entropy,
    standardize,
    total_variation,
    wsld,
)

__all__ = [
    "CRD",
    "MGD",
    "VID",
    "FactorTransfer",
    "Paraphraser",
    "ReviewKD",
    "Sampled",
    "TopK",
    "activation_boundary",
    "attention",
    "bounded_regression",
    "channel",
    "channel_correlation",
    "correlation",
    "cosine",
    "dist",
    "dkd",
    "factor",
    "fsp",
    "hard_label",
    "jsd",
    "kd",
    "l1",
    "logit_mse",
    "margin_relu",
    "mlkd",
    "mse",
    "negative_mean",
    "nkd",
    "nst",
    "own_precision",
    "pearson",
    "pkt",
    "probability_mse",
    "reverse_kl",
    "rkd",
    "sigmoid_kd",
    "similarity",
    "simkd",
    "skewed_kl",
    "smooth_l1",
    "soft_cross_entropy",
    "srrl",
    "standardize",
    "total_variation",
    "wsld",
]

_BESIDE = ("Sampled", "TopK", "negative_mean", "own_precision", "standardize")
LOSSES = tuple(name for name in __all__ if name not in _BESIDE)
"""The names that a term can use; the rest of `__all__` is what some of them take, and what marks one of your own."""
