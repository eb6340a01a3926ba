"""Schemes: offline distillation with a frozen teacher. One contract, `(batch, signal) -> Step`."""

from limbeck.distillers.offline import Distiller
from limbeck.distillers.scheme import Scheme
from limbeck.distillers.term import Term, ramp

__all__ = ["Distiller", "Scheme", "Term", "ramp"]
