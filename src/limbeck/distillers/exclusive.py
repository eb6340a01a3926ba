"""Losses that compare probabilities of classes that exclude each other, for a task without such classes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from limbeck.tasks import Task
from limbeck.tasks.positions import Positions

if TYPE_CHECKING:
    from limbeck.distillers.term import BoundTerm

_RESPONSE = "limbeck.losses.response."
_OF_ANY_OUTPUTS = ("bounded_regression", "logit_mse", "sigmoid_kd")
_INSTEAD = {"multi-label": "sigmoid_kd", "regression": "mse or bounded_regression"}


def for_exclusive_classes(terms: Iterable[BoundTerm], task: Task) -> list[str]:
    """What should be said of terms whose loss takes a softmax over outputs that are no logits of classes, a line each.

    >>> from limbeck import Term, losses
    >>> from limbeck.distillers.term import BoundTerm
    >>> from limbeck.tasks import Classification, MultiLabel
    >>> for_exclusive_classes([BoundTerm(Term(losses.kd))], MultiLabel())
    ['term kd compares probabilities of classes that exclude each other, and multi-label has none; see sigmoid_kd']
    >>> for_exclusive_classes([BoundTerm(Term(losses.sigmoid_kd))], MultiLabel())
    []
    >>> for_exclusive_classes([BoundTerm(Term(losses.kd))], Classification())
    []
    """
    has_classes = task.classifies or isinstance(task, Positions)
    if has_classes or not type(task).__module__.startswith("limbeck."):  # of others nobody knows
        return []
    better = _INSTEAD.get(task.name, "mse")
    return [
        f"term {one.term.name} compares probabilities of classes that exclude each other, and {task.name} has none; "
        f"see {better}"
        for one in terms
        if one.compares_logits and _takes_softmax(one.term.loss)
    ]


def _takes_softmax(loss: object) -> bool:
    kind = loss if hasattr(loss, "__name__") else type(loss)
    return kind.__module__.startswith(_RESPONSE) and getattr(kind, "__name__", "") not in _OF_ANY_OUTPUTS
