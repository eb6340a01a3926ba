"""Texts that every Python has: the documentation of its language and library, and sources of the library."""

from __future__ import annotations

import math
import platform
import sysconfig
from dataclasses import replace
from pathlib import Path

from limbeck.data.splits import DataSet
from limbeck.data.text.blocks import blocks
from limbeck.data.text.language import language_set
from limbeck.data.text.tokenizers import made_tokenizer
from limbeck.errors import RequestError
from limbeck.options import Share, Width

MODULES = (
    "calendar", "cmd", "contextlib", "copy", "csv", "dataclasses", "fractions", "functools", "glob", "heapq", "pprint",
    "queue", "random", "sched", "shlex", "statistics", "string", "textwrap", "timeit", "types", "weakref",
)  # fmt: skip
"""The modules of the standard library whose sources are read."""
APART = 10
"""Of so many documents one is for the test, and one for validation."""


def python_docs(
    root: Path,
    *,
    tokenizer: str = "bpe",
    vocab: Width = 1024,
    length: Width = 64,
    sources: bool = True,
    part: Share = 1.0,
) -> DataSet:
    """The documentation and library of this Python as blocks of tokens, split by document.

    Args:
        root: Not used: nothing is read or downloaded but Python itself.
        tokenizer: "bpe", trained on the training documents, "bytes", or a file or folder.
        vocab: Tokens of the one that is trained.
        length: Tokens of a block.
        sources: Whether modules' sources are read beside the documentation.
        part: Share of each document that is read, from its beginning.

    Raises:
        RequestError: The sources of a module are not there, or the tokenizer cannot be made.
    """
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, document in enumerate(documents(sources)):
        parts[{4: "validation", 9: "test"}.get(number % APART, "train")].append(
            document[: math.ceil(part * len(document))]
        )
    made = made_tokenizer(tokenizer, vocab, parts["train"])
    splits = {name: blocks(some, made, length) for name, some in parts.items()}
    found = language_set("python-docs", splits, made, length)
    return replace(found, origin={"python": platform.python_version()})


def documents(sources: bool = True) -> list[str]:
    """The documents in the order of their names: topics of the documentation, then modules."""
    from pydoc_data.topics import topics

    found = [topics[name] for name in sorted(topics)]
    return [*found, *map(_source, MODULES)] if sources else found


def _source(module: str) -> str:
    file = Path(sysconfig.get_path("stdlib"), f"{module}.py")
    if not file.is_file():
        raise RequestError(f"this Python comes without the source {file}; set data.options.sources to false")
    return file.read_text(encoding="utf-8")
