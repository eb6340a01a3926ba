"""What a file reads and gives by the kind of data and of task: inputs, the outputs' name, how a script shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from limbeck.runs.texts import of_texts
from limbeck.shipping.reading import Plain, Reading
from limbeck.shipping.texts import OfTexts
from limbeck.tasks import (
    Classification,
    Embedding,
    LanguageModelling,
    MultiLabel,
    Regression,
    Segmentation,
    Task,
    TokenClassification,
)


def reading(
    about: Mapping[str, Any], network: nn.Module, size: int | None = None, prepare: nn.Module | None = None
) -> Reading:
    """What the files of a network read.

    Args:
        about: What its description says.
        network: The network.
        size: Height and width to which its images are resized beside the file; None for none.
        prepare: What takes a text's tokens out of a batch that holds others too; None for none.
    """
    shape, sample = tuple(about["input"]["shape"]), of_texts(about)
    if sample is None:
        return Plain(shape, size)
    return OfTexts(tuple(sample["inputs"]), sample["vocab"], shape[0], network, prepare)


@dataclass(frozen=True)
class Kind:
    """One kind of outputs.

    Attributes:
        shown: Over what a script prints a line each, as Python with `outputs` and `classes`, and of texts `reader`, the
            tokenizer, and `mask`.
        tags: Pipeline tags of the Hugging Face Hub, for samples that are images, texts and others.
        named: Whether the outputs are of classes or labels, which have names.
        framed: Whether texts are read with special tokens around them.
    """

    shown: str
    tags: Mapping[str, str]
    named: bool
    framed: bool = True


def _tags(images: str, texts: str, other: str) -> Mapping[str, str]:
    return {"images": images, "texts": texts, "other": other}


_OTHER = Kind("outputs.tolist()", _tags("other", "other", "other"), False)
_KINDS: dict[type[Task], Kind] = {
    Classification: Kind(
        "[classes[i] for i in (outputs.argmax(1) if outputs.shape[1:] > (1,) else outputs.ravel() > 0).astype(int)]",
        _tags("image-classification", "text-classification", "tabular-classification"),
        True,
    ),
    MultiLabel: Kind(
        '[", ".join(name for name, one in zip(classes, each) if one > 0) for each in outputs]',
        _tags("image-classification", "text-classification", "tabular-classification"),
        True,
    ),
    Segmentation: Kind(
        "outputs.argmax(1).tolist()",
        _tags("image-segmentation", "other", "other"),
        True,
    ),
    TokenClassification: Kind(
        "outputs.argmax(-1).tolist()",
        _tags("other", "token-classification", "token-classification"),
        True,
    ),
    LanguageModelling: Kind(
        "[repr(reader.decode([row[n - 1].argmax()])) for row, n in zip(outputs, mask.sum(1))]",
        _tags("other", "text-generation", "other"),
        named=False,
        framed=False,
    ),
    Regression: Kind("outputs.tolist()", _tags("other", "other", "tabular-regression"), False),
    Embedding: Kind(
        "outputs.tolist()",
        _tags("image-feature-extraction", "feature-extraction", "feature-extraction"),
        False,
    ),
}


def class_count(task: Task, outputs: int) -> int:
    """How many classes or labels so many outputs are of: a classifier's single one is of two."""
    return max(outputs, 2 if task.classifies_samples else 1)


def kind(task: Task) -> Kind:
    """The kind of a task's outputs; of a task of the user's own that of what it is derived from, or is like."""
    other = _KINDS[Classification] if task.classifies_samples else _OTHER
    return next((_KINDS[one] for one in type(task).__mro__ if one in _KINDS), other)
