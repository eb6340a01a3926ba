"""Texts in files as blocks of tokens, for language models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from limbeck.data.splits import DataSet
from limbeck.data.text.blocks import blocks
from limbeck.data.text.files import Files, located, texts
from limbeck.data.text.shares import drawn, files_of, shares_of
from limbeck.data.text.texts import Texts
from limbeck.data.text.tokenizers import Tokenizer, made_tokenizer
from limbeck.options import Width
from limbeck.tasks import LanguageModelling

DRAWN = 20
"""So many documents or more are taken apart whole; of fewer, each one's end."""
NEAR = 20
"""A document is cut behind a line or a word that ends at most a twentieth of it before its share does."""


def text_files(
    root: Path,
    *,
    train: Files,
    test: Files | float = 0.1,
    validation: Files | float | None = None,
    text: str = "text",
    columns: list[str] | None = None,
    tokenizer: str = "bpe",
    vocab: Width = 4096,
    length: Width = 128,
) -> DataSet:
    """Documents out of files in the data root, packed to blocks of tokens.

    Args:
        root: The data root.
        train: File or files, also patterns: plain text is one document a file; of .jsonl, .tsv, .csv, .parquet and
            folders of Hugging Face's datasets each record is one.
        test: Likewise, or a share of the training documents: whole ones drawn by one seed, of fewer than 20 the ends.
        validation: Likewise.
        text: The column of the texts.
        columns: The columns of .tsv and .csv files whose first line does not name them.
        tokenizer: "bpe", trained on the training documents, "bytes", or a file or folder.
        vocab: Tokens of the one that is trained.
        length: Tokens of a block.

    Raises:
        RequestError: A file or column is not there, or there is too little text.
    """
    given = {"train": train, "validation": validation, "test": test}
    shares = shares_of(given, "text")
    parts = {name: texts(located(root, files), text, columns or ()) for name, files in files_of(given).items()}
    parts |= apart(parts["train"], shares)
    made = made_tokenizer(tokenizer, vocab, parts["train"])
    return language_set("text-files", {name: blocks(some, made, length) for name, some in parts.items()}, made, length)


def language_set(name: str, splits: dict[str, Texts], tokenizer: Tokenizer, length: int) -> DataSet:
    """The data set of a language model."""
    task = LanguageModelling(token_bytes=tokenizer.token_bytes())
    parts = splits["train"], splits["test"]
    return DataSet(name, *parts, tokenizer.size, (length,), splits.get("validation"), task=task, tokenizer=tokenizer)


def apart(documents: Sequence[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Documents in parts: "train", and of each name its share."""
    if not shares:
        return {"train": list(documents)}
    if len(documents) < DRAWN:
        return _ends(documents, shares)
    order = drawn(len(documents), "documents")
    parts, start = {}, 0
    for name, share in shares.items():
        stop = start + math.ceil(share * len(documents))
        parts[name] = [documents[at] for at in sorted(order[start:stop])]
        start = stop
    return {"train": [documents[at] for at in sorted(order[start:])], **parts}


def _ends(documents: Sequence[str], shares: dict[str, float]) -> dict[str, list[str]]:
    """Of each document its end, cut behind a line or a word where one ends near."""
    parts: dict[str, list[str]] = {"train": [], **{name: [] for name in shares}}
    for document in documents:
        place, taken = _line(document, 1 - sum(shares.values())), 1 - sum(shares.values())
        parts["train"].append(document[:place])
        for name, share in shares.items():
            taken += share
            stop = len(document) if taken > 1 - 1e-9 else _line(document, taken)
            parts[name].append(document[place:stop])
            place = stop
    return parts


def _line(document: str, share: float) -> int:
    """Where a share of a document ends: behind the last line before, else the last word, where one ends near."""
    place = round(share * len(document))
    near = place - len(document) // NEAR
    ends = (document.rfind(one, max(near, 0), place) + 1 for one in ("\n", " "))
    return next(filter(None, ends), place)
