"""What a file's outputs mean by the kind of task: their name, how a script shows them, what teaches them anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from limbeck import losses
from limbeck.tasks import Classification, Embedding, MultiLabel, Regression, Segmentation, Task, TokenClassification


@dataclass(frozen=True)
class Kind:
    """One kind of outputs.

    Attributes:
        output: What files call their output.
        shown: Over what a script prints a line each, as Python with `outputs` and `classes`.
        images, other: Pipeline tags of the Hugging Face Hub, for samples that are images and for others.
        loss: The loss against the teacher with which a student is trained for int8.
        soft: Whether that loss has a temperature.
        named: Whether the outputs are of classes or labels, which have names.
    """

    output: str
    shown: str
    images: str
    other: str
    loss: Callable[..., Any]
    soft: bool
    named: bool


_OTHER = Kind("outputs", "outputs.tolist()", "other", "other", losses.mse, False, False)
_KINDS: dict[type[Task], Kind] = {
    Classification: Kind(
        "logits",
        "[classes[i] for i in (outputs.argmax(1) if outputs.shape[1:] > (1,) else outputs.ravel() > 0).astype(int)]",
        "image-classification",
        "tabular-classification",
        losses.kd,
        True,
        True,
    ),
    MultiLabel: Kind(
        "logits",
        '[", ".join(name for name, one in zip(classes, each) if one > 0) for each in outputs]',
        "image-classification",
        "tabular-classification",
        losses.sigmoid_kd,
        False,
        True,
    ),
    Segmentation: Kind("logits", "outputs.argmax(1).tolist()", "image-segmentation", "other", losses.kd, True, True),
    TokenClassification: Kind(
        "logits", "outputs.argmax(-1).tolist()", "other", "token-classification", losses.kd, True, True
    ),
    Regression: Kind("outputs", "outputs.tolist()", "other", "tabular-regression", losses.mse, False, False),
    Embedding: Kind(
        "outputs", "outputs.tolist()", "image-feature-extraction", "feature-extraction", losses.mse, False, False
    ),
}


def kind(task: Task) -> Kind:
    """The kind of a task's outputs; of a task of the user's own that of what it is derived from."""
    return next((_KINDS[one] for one in type(task).__mro__ if one in _KINDS), _OTHER)
