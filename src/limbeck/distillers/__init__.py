"""Schemes, each one way of distilling: offline, on-policy, self, mutual, mean teacher, class-wise; one contract."""

from limbeck.distillers.by_epoch import ramp
from limbeck.distillers.class_wise import ClassWise
from limbeck.distillers.mean_teacher import MeanTeacher
from limbeck.distillers.mutual import MutualDistiller
from limbeck.distillers.offline import Distiller
from limbeck.distillers.on_policy import OnPolicyDistiller
from limbeck.distillers.on_policy_tokens import OnPolicyTokenDistiller
from limbeck.distillers.scheme import Scheme
from limbeck.distillers.self_distillation import SelfDistiller
from limbeck.distillers.term import Term
from limbeck.distillers.tokens import TokenDistiller

__all__ = [
    "ClassWise",
    "Distiller",
    "MeanTeacher",
    "MutualDistiller",
    "OnPolicyDistiller",
    "OnPolicyTokenDistiller",
    "Scheme",
    "SelfDistiller",
    "Term",
    "TokenDistiller",
    "ramp",
]
