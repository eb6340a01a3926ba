"""Losses between hidden tensors of teacher and student (feature knowledge)."""

from limbeck.losses.feature.activation import activation_boundary, margin_relu, negative_mean
from limbeck.losses.feature.elementwise import cosine, l1, mse, smooth_l1
from limbeck.losses.feature.factors import FactorTransfer, Paraphraser, factor
from limbeck.losses.feature.gaussians import wkd_f
from limbeck.losses.feature.local import catkd, sdd
from limbeck.losses.feature.mgd import MGD
from limbeck.losses.feature.orthogonal import VkD
from limbeck.losses.feature.regression import srrl
from limbeck.losses.feature.review import ReviewKD
from limbeck.losses.feature.spatial import attention, channel, pearson, simkd
from limbeck.losses.feature.statistics import fsp, nst
from limbeck.losses.feature.vid import VID

__all__ = [
    "MGD",
    "VID",
    "FactorTransfer",
    "Paraphraser",
    "ReviewKD",
    "VkD",
    "activation_boundary",
    "attention",
    "catkd",
    "channel",
    "cosine",
    "factor",
    "fsp",
    "l1",
    "margin_relu",
    "mse",
    "negative_mean",
    "nst",
    "pearson",
    "sdd",
    "simkd",
    "smooth_l1",
    "srrl",
    "wkd_f",
]
