"""Labelled texts, for classifiers, with unlabelled ones beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.splits import DataSet
from limbeck.data.text.files import Files, column, located, records, text_column, texts
from limbeck.data.text.readings import Readings
from limbeck.data.text.reduced import Most, reduced
from limbeck.data.text.shares import drawn
from limbeck.data.text.texts import Padding, Texts
from limbeck.data.text.tokenizers import made_tokenizer
from limbeck.errors import RequestError, shown, some
from limbeck.options import Width
from limbeck.types import IGNORED

_NONE = (None, "", "-1")
"""What a record without a label has in its place."""


def text_classes(
    root: Path,
    *,
    train: Files,
    test: Files,
    validation: Files | float | None = None,
    unlabelled: Files | None = None,
    text: str = "text",
    label: str = "label",
    columns: list[str] | None = None,
    labels: Width | None = None,
    tokenizer: str = "bpe",
    vocab: Width = 4096,
    reduce: Most | None = None,
    length: Width = 64,
    teacher_tokenizer: str | None = None,
    teacher_length: Width | None = None,
    padding: Padding = "batch",
    buckets: bool = True,
) -> DataSet:
    """Texts with a class each, out of files in the data root.

    Args:
        root: The data root.
        train: File or files, also patterns: .tsv, .csv, .jsonl, .parquet, or a folder of Hugging Face's datasets.
        test: Likewise.
        validation: Likewise, or a share of the training texts.
        unlabelled: Likewise, of texts without labels that the teacher labels.
        text: The column of the texts.
        label: The column of the classes; a record without a value, or with −1, has none.
        columns: The columns of .tsv and .csv files whose first line does not name them.
        labels: Keep the labels of so many training texts of each class alone; the others teach as unlabelled ones.
        tokenizer: "bpe", trained on the training texts, "bytes", or a file or folder.
        vocab: Tokens of the one that is trained.
        reduce: Of a tokenizer from a file: how many of its tokens are kept at most, the most frequent ones in the
            training texts, or "used": all that occur there (`limbeck.data.text.reduced`); None: all.
        length: Tokens of a text at most, with those that the tokenizer sets around it, else with an end; longer ones
            are cut.
        teacher_tokenizer: File or folder of the teacher's own tokenizer, "teacher" for the folder of its model, which
            then reads the same texts in its own tokens; None: it reads the student's.
        teacher_length: Tokens of a text at most as the teacher reads it; None: as its folder says, else `length`.
        padding: Up to what a batch is padded: "batch", its longest text, or "length".
        buckets: Whether shuffled batches hold texts of like length.

    Raises:
        RequestError: A file or column is not there, or a label is not among those of the training texts.
    """
    parts = {"train": _labelled(root, train, text, label, columns), "test": _labelled(root, test, text, label, columns)}
    if isinstance(validation, str | list):
        parts["validation"] = _labelled(root, validation, text, label, columns)
    more = [] if unlabelled is None else texts(located(root, unlabelled), text, columns or ())
    parts["train"] = (parts["train"][0] + more, parts["train"][1] + [None] * len(more))
    made = made_tokenizer(tokenizer, vocab, parts["train"][0])
    made = made if reduce is None else reduced(made, parts["train"][0], reduce)
    names = _names(parts["train"][1])
    readings = Readings.of(made, length, teacher_tokenizer, teacher_length)
    splits = {
        part: readings.split(rows, _numbers(classes, names, part), padding=padding, buckets=buckets)
        for part, (rows, classes) in parts.items()
    }
    found = DataSet(
        "text-classes",
        splits["train"],
        splits["test"],
        len(names),
        (length,),
        splits.get("validation"),
        readings.note,
        tuple(names),
        tokenizer=made,
    )
    if isinstance(validation, int | float):
        found = found.with_validation(validation)
    if labels is not None and isinstance(found.train, Texts):
        found = replace(found, train=replace(found.train, targets=few(found.train.targets, labels)))
    return found


def few(targets: Tensor, each: int) -> Tensor:
    """Class indices of which each class keeps so many at most, drawn by one seed; the others are −100."""
    order = torch.tensor(drawn(len(targets), "labels"))
    found = torch.full_like(targets, IGNORED)
    for number in sorted(set(targets[targets >= 0].tolist())):
        kept = order[targets[order] == number][:each]
        found[kept] = number
    return found


def _labelled(
    root: Path, names: Files, text: str, label: str, columns: Sequence[str] | None
) -> tuple[list[str], list[str | None]]:
    rows: list[str] = []
    classes: list[str | None] = []
    for path in located(root, names):
        content = records(path, columns or ())
        rows += [one or "" for one in text_column(content, text, path)]
        classes += [_word(value, f"{path}, record {at}") for at, value in enumerate(column(content, label, path), 1)]
    if not rows:
        raise RequestError(f"there is no text in {names}")
    return rows, classes


def _word(value: Any, place: str) -> str | None:
    """A label as a text: a number is the same one in every column that holds it, of whole numbers or of others."""
    if isinstance(value, list | tuple | dict):
        raise RequestError(f"{place}: the label is {shown(value)}, and a text has one, a word or a number")
    if isinstance(value, float):
        return None if math.isnan(value) else f"{value:.0f}" if value.is_integer() else str(value)
    return None if value is None else str(value)


def _names(classes: Sequence[str | None]) -> list[str]:
    """The names of the classes: numbers in their order, else words in theirs.

    Raises:
        RequestError: There is none.
    """
    found = {one for one in classes if one is not None and one not in _NONE}
    if not found:
        raise RequestError("no training text has a label; name their column with label in data.options")
    return sorted(found, key=(lambda one: (int(one), one)) if all(map(str.isdecimal, found)) else None)


def _numbers(classes: Sequence[str | None], names: Sequence[str], part: str) -> Tensor:
    known: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    strange = sorted({one for one in classes if one is not None and one not in _NONE and one not in known})
    if strange:
        raise RequestError(
            f"the {part} texts have the labels {some(strange)}, which no training text has; known: {some(names)}"
        )
    return torch.tensor([IGNORED if one in _NONE else known[one] for one in classes])
