"""Schemes, each one way of distilling: offline, self, mutual, mean teacher, class-wise. One contract for all."""

from limbeck.distillers.by_epoch import ramp
from limbeck.distillers.class_wise import ClassWise
from limbeck.distillers.mean_teacher import MeanTeacher
from limbeck.distillers.mutual import MutualDistiller
from limbeck.distillers.offline import Distiller
from limbeck.distillers.scheme import Scheme
from limbeck.distillers.self_distillation import SelfDistiller
from limbeck.distillers.term import Term
from limbeck.distillers.tokens import TokenDistiller

__all__ = [
    "ClassWise",
    "Distiller",
    "MeanTeacher",
    "MutualDistiller",
    "Scheme",
    "SelfDistiller",
    "Term",
    "TokenDistiller",
    "ramp",
]
