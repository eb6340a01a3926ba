"""Unlabelled sentences, of which a student learns a teacher's embeddings."""

from __future__ import annotations

import math
import platform
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from limbeck.data.splits import DataSet
from limbeck.data.text.files import ENDINGS, Files, located, records, text_column
from limbeck.data.text.python_docs import APART, documents
from limbeck.data.text.readings import Readings
from limbeck.data.text.reduced import Most, reduced
from limbeck.data.text.shares import drawn, files_of, shares_of
from limbeck.data.text.texts import Padding
from limbeck.data.text.tokenizers import made_tokenizer
from limbeck.errors import RequestError
from limbeck.models.foreign.hugging_face_sentences import width_in
from limbeck.options import Width
from limbeck.seeds import derive
from limbeck.tasks import Embedding
from limbeck.types import IGNORED

LEAST = 3
"""Fewer words of running text are no sentence, but a heading or a number."""
_ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_PARAGRAPHS = re.compile(r"\n\s*\n")


def text_sentences(
    root: Path,
    *,
    train: Files | None = None,
    test: Files | float = 0.1,
    validation: Files | float = 0.1,
    docs: bool = False,
    pieces: bool = False,
    text: str = "text",
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
    """Sentences without labels, for embeddings: records of files in the data root, and sentences of plain text.

    No sentence occurs twice; one that is tested, or validated, is in no other part. They stand in the order of their
    lengths, so that batches in order, by which a teacher is asked, hold little padding.

    Args:
        root: The data root.
        train: File or files, also patterns: each record of .tsv, .csv, .jsonl, .parquet and of folders of Hugging
            Face's datasets is a sentence; plain text is taken apart.
        test: Likewise, or a share of the training sentences.
        validation: Likewise.
        docs: Whether the documentation of this Python is added, a tenth of its documents to each of the other parts.
        pieces: Whether the teacher is asked about words by themselves too, those that occur twice in the training
            sentences, and about a few words that follow one another in each of these.
        text: The column of the texts.
        columns: The columns of .tsv and .csv files whose first line does not name them.
        width: Numbers of an embedding; None: as the folder of the teacher's tokenizer says.
        tokenizer: "bpe", trained on the training sentences, "bpe-uncased", which is blind to capitals, "bytes", or a
            file or folder.
        vocab: Tokens of the one that is trained.
        reduce: Of a tokenizer from a file: how many of its tokens are kept at most, the most frequent ones in the
            training texts, or "used": all that occur there (`limbeck.data.text.reduced`); None: all.
        length: Tokens of a sentence at most; longer ones are cut.
        teacher_tokenizer: File or folder of the teacher's own tokenizer, "teacher" for the folder of its model, which
            then reads the same texts in its own tokens; None: it reads the student's.
        teacher_length: Tokens of a text at most as the teacher reads it; None: as its folder says, else `length`.
        padding: Up to what a batch is padded: "batch", its longest text, or "length".
        buckets: Whether shuffled batches hold texts of like length.

    Raises:
        RequestError: A file or column is not there, there is no sentence, or the width is not known.
    """
    numbers = width_of("text-sentences", width, teacher_tokenizer)
    parts = _parts(root, {"train": train, "validation": validation, "test": test}, text, columns or ())
    if docs:
        parts = {name: parts[name] + _of_docs(name) for name in parts}
    parts = _apart(parts)
    if not all(parts.values()):
        empty = ", ".join(name for name, some in parts.items() if not some)
        raise RequestError(f"there is no sentence for {empty}; give data.options.train files, or docs: true")
    made = made_tokenizer(tokenizer, vocab, parts["train"])
    if pieces:
        parts = _apart({**parts, "train": [*parts["train"], *in_pieces(parts["train"])]})
    made = made if reduce is None else reduced(made, parts["train"], reduce)
    readings = Readings.of(made, length, teacher_tokenizer, teacher_length)
    splits = {
        name: readings.split(sorted(some, key=len), torch.full((len(some),), IGNORED), padding=padding, buckets=buckets)
        for name, some in parts.items()
    }
    return DataSet(
        "text-sentences",
        splits["train"],
        splits["test"],
        numbers,
        (length,),
        splits["validation"],
        readings.note,
        task=Embedding(),
        tokenizer=made,
        origin={"python": platform.python_version()} if docs else {},
    )


def width_of(name: str, width: int | None, teacher: str | None) -> int:
    """How many numbers the embeddings of a data set have: as is said, else as the teacher's folder says.

    Raises:
        RequestError: Neither says it.
    """
    numbers = width or (None if teacher is None else width_in(Path(teacher)))
    if numbers is None:
        raise RequestError(f"{name} needs the width of the teacher's embeddings; give data.options.width")
    return numbers


def sentences(text: str) -> list[str]:
    """The sentences of plain text, each on one line; paragraphs end at an empty line.

    >>> sentences("To be, or not\\nto be. That is the question!\\n\\nHamlet:\\n\\nAnd so on and on")
    ['To be, or not to be.', 'That is the question!', 'And so on and on']
    """
    lines = (" ".join(paragraph.split()) for paragraph in _PARAGRAPHS.split(text))
    return [one for line in lines for one in _ENDS.split(line) if len(one.split()) >= LEAST]


def in_pieces(rows: Sequence[str]) -> list[str]:
    """Words that occur twice or more, in lower case, and of each longer sentence 2 to 8 words that follow one another.

    By these a student that adds up what words mean learns rare ones, and what two have in common.
    """
    counts = Counter(word for row in rows for word in _WORD.findall(row.lower()))
    found = [word for word, count in counts.items() if count > 1]
    draws = random.Random(derive(0, "pieces"))
    for row in rows:
        words = row.split()
        if len(words) > LEAST:
            size = draws.randint(2, min(8, len(words) - 1))
            start = draws.randint(0, len(words) - size)
            found.append(" ".join(words[start : start + size]))
    return found


def _parts(
    root: Path, given: Mapping[str, Files | float | None], text: str, columns: Sequence[str]
) -> dict[str, list[str]]:
    """The sentences of files, and of the shares of the training files' sentences that are drawn by one seed."""
    shares = shares_of(given, "sentences")
    found: dict[str, list[str]] = {name: [] for name in given}
    for name, files in files_of(given).items():
        found[name] = [one for path in located(root, files) for one in _in_file(path, text, columns)]
    rest = list(dict.fromkeys(found["train"]))
    order = drawn(len(rest), "sentences")
    for name, share in shares.items():
        taken, order = order[: math.ceil(share * len(rest))], order[math.ceil(share * len(rest)) :]
        found[name] = [rest[at] for at in sorted(taken)]
    return {**found, "train": [rest[at] for at in sorted(order)]}


def _in_file(path: Path, text: str, columns: Sequence[str]) -> list[str]:
    some = [one or "" for one in text_column(records(path, columns), text, path)]
    plain = not path.is_dir() and path.suffix.lower() not in ENDINGS[1:]
    return [one for whole in some for one in (sentences(whole) if plain else [whole.strip()]) if one]


def _of_docs(part: str) -> list[str]:
    """The sentences of this Python's documentation in one part, taken apart by document."""
    numbers = {"validation": (4,), "test": (9,)}.get(part, tuple(set(range(APART)) - {4, 9}))
    whole = [one for number, one in enumerate(documents(sources=False)) if number % APART in numbers]
    return [one for document in whole for one in sentences(document)]


def _apart(parts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The parts without what occurs twice: the test keeps it before the validation, and that before the training."""
    seen: set[str] = set()
    found = {}
    for name in ("test", "validation", "train"):
        found[name] = [one for one in dict.fromkeys(parts[name]) if one not in seen]
        seen.update(found[name])
    return {name: found[name] for name in ("train", "validation", "test")}
