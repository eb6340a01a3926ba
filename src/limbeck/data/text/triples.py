"""Queries with a text that fits and others that do not, of which a student learns its teacher's margins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from limbeck.data.splits import DataSet
from limbeck.data.text.files import Files, located, records, text_column
from limbeck.data.text.readings import Readings
from limbeck.data.text.reduced import Most, reduced
from limbeck.data.text.sentences import width_of
from limbeck.data.text.shares import drawn, shares_of
from limbeck.data.text.texts import Padding, Texts
from limbeck.data.text.tokenizers import made_tokenizer
from limbeck.errors import RequestError
from limbeck.options import Width
from limbeck.tasks import Embedding

Triple = tuple[str, ...]
"""A query, the text that fits, and one or more others."""


def text_triples(
    root: Path,
    *,
    train: Files,
    test: Files | float = 0.1,
    validation: Files | float = 0.1,
    query: str = "query",
    positive: str = "positive",
    negative: str | list[str] = "negative",
    columns: list[str] | None = None,
    width: Width | None = None,
    tokenizer: str = "bpe",
    vocab: Width = 8192,
    reduce: Most | None = None,
    length: Width = 64,
    teacher_tokenizer: str | None = None,
    teacher_length: Width | None = None,
    padding: Padding = "batch",
    buckets: bool = True,
) -> DataSet:
    """Queries with a text that fits each and one or more that fit less, for embeddings by MarginMSE.

    Each text is a sample, and those of a triple follow one another and share a batch, so that `batch_size` is a
    multiple of 3, or of 2 and the number of others. A teacher is asked about texts one by one. Targets are numbers that
    tell a triple's texts, which the task `Embedding(texts=3)` measures by, and no labels.

    Args:
        root: The data root.
        train: File or files, also patterns: .tsv, .csv, .jsonl, .parquet, or a folder of Hugging Face's datasets; a
            triple a record.
        test: Likewise, or a share of the training queries, with all triples of each.
        validation: Likewise.
        query: The column of the queries.
        positive: The column of the texts that fit.
        negative: The column of the others, or several columns.
        columns: The columns of .tsv and .csv files whose first line does not name them.
        width: Numbers of an embedding; None: as the folder of the teacher's tokenizer says.
        tokenizer: "bpe", trained on the training texts, "bpe-uncased", "bytes", or a file or folder.
        vocab: Tokens of the one that is trained.
        reduce: Of a tokenizer from a file: how many of its tokens are kept at most, the most frequent ones in the
            training texts, or "used": all that occur there (`limbeck.data.text.reduced`); None: all.
        length: Tokens of a text at most; longer ones are cut.
        teacher_tokenizer: File or folder of the teacher's own tokenizer, "teacher" for the folder of its model; None:
            it reads the student's.
        teacher_length: Tokens of a text at most as the teacher reads it; None: as its folder says, else `length`.
        padding: Up to what a batch is padded: "batch", its longest text, or "length".
        buckets: Whether shuffled batches hold triples of like length.

    Raises:
        RequestError: A file or column is not there, a record lacks a text, there is no triple, or the width is not
            known.
    """
    wide = width_of("text-triples", width, teacher_tokenizer)
    names = [query, positive, *([negative] if isinstance(negative, str) else negative)]
    if len(set(names)) < len(names) or len(names) < 3:
        raise RequestError(f"text-triples reads a query, a positive and negatives from different columns, not {names}")
    given: dict[str, Files | float] = {"train": train, "validation": validation, "test": test}
    parts = _shared_out(root, given, names, columns or ())
    plain = [text for triple in parts["train"] for text in triple]
    made = made_tokenizer(tokenizer, vocab, plain)
    made = made if reduce is None else reduced(made, plain, reduce)
    readings = Readings.of(made, length, teacher_tokenizer, teacher_length)
    splits = {name: _split(readings, some, padding, buckets) for name, some in parts.items()}
    return DataSet(
        "text-triples",
        splits["train"],
        splits["test"],
        wide,
        (length,),
        splits["validation"],
        readings.note,
        task=Embedding(texts=len(names)),
        tokenizer=made,
    )


def _split(readings: Readings, triples: Sequence[Triple], padding: Padding, buckets: bool) -> Texts:
    """Triples as samples, short ones first, so that batches in order hold little padding."""
    rows = [text for triple in sorted(triples, key=lambda one: max(map(len, one))) for text in triple]
    numbers = torch.arange(len(rows), dtype=torch.float64)  # no class a sample
    return readings.split(rows, numbers, padding=padding, buckets=buckets, group=len(triples[0]))


def _shared_out(
    root: Path, given: Mapping[str, Files | float], names: Sequence[str], columns: Sequence[str]
) -> dict[str, list[Triple]]:
    """The triples of each part; of a share those of queries that are drawn by one seed."""
    shares = shares_of(given, "queries")
    found = {
        name: [one for path in located(root, files) for one in _in_file(path, names, columns)]
        for name, files in given.items()
        if isinstance(files, str | list)
    }
    queries = list(dict.fromkeys(triple[0] for triple in found["train"]))
    order = drawn(len(queries), "triples")
    for name, share in shares.items():
        taken = {queries[at] for at in order[: math.ceil(share * len(queries))]}
        order = order[math.ceil(share * len(queries)) :]
        found[name] = [triple for triple in found["train"] if triple[0] in taken]
        found["train"] = [triple for triple in found["train"] if triple[0] not in taken]
    empty = ", ".join(name for name, some in found.items() if not some)
    if empty:
        raise RequestError(f"there is no triple for {empty}; give more queries in data.options.train, or files")
    return found


def _in_file(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[Triple]:
    content = records(path, columns)
    columns_of = ([(one or "").strip() for one in text_column(content, name, path)] for name in names)
    found = list(zip(*columns_of, strict=True))
    for number, triple in enumerate(found, start=1):
        if not all(triple):
            raise RequestError(f"{path}, record {number}, has no text for {names[triple.index('')]}")
    return found
