"""Storing what a teacher behind a server said about a recipe's data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from limbeck.data.text.texts import IDS, Texts
from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs import components
from limbeck.teachers.coding import Coding
from limbeck.teachers.logprobs import read_logprobs, store_likeliest


def cache_logprobs(
    recipe: schema.Recipe, file: Path, where: str, *, root: Path, dtype: str | None = None, bits: int | None = None
) -> dict[str, Any]:
    """Store the log-probabilities of a file (`limbeck.teachers.logprobs`) for the training texts of a recipe.

    Args:
        recipe: Whose data.
        file: JSON lines or Parquet, a sample each in the data's order.
        where: A folder or an fsspec address; `StoredTeacher(where)` reads it.
        root: Folder of the data.
        dtype: "float32" for exact values.
        bits: Of each log-probability.

    Returns:
        "place", "samples", "views", "bytes", "token_bytes", "top_k".

    Raises:
        RequestError: The data are no texts of a language model, or the file does not belong to them.
    """
    data = components.data(recipe.data, root)
    split, tokenizer = data.train, data.tokenizer
    if not isinstance(split, Texts) or tokenizer is None or split.targets.dim() != 2:
        raise RequestError(f"{data.name} holds no texts of a language model, to which log-probabilities belong")
    ids = split.inputs.get(IDS) if isinstance(split.inputs, Mapping) else split.inputs
    if not isinstance(ids, Tensor):
        raise RequestError(f"the texts of {data.name} have no {IDS}")
    top = read_logprobs(file, ids, split.targets, tokenizer.size, ids_of(tokenizer))
    coding = Coding(dtype or "float16", top_k=top.indices.shape[-1], bits=bits)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    made_of = {"teacher": f"log-probabilities {digest}", "data": split.fingerprint}
    words = {"teacher": file.name, "data": data.name}
    held = store_likeliest(top, where, classes=tokenizer.size, made_of=made_of, coding=coding, words=words)
    size = int(held.about["sample_bytes"])
    counts = {"samples": held.samples, "views": 1, "bytes": held.samples * size, "token_bytes": size / ids.shape[1]}
    return {"place": where, **counts, "top_k": coding.top_k}


def ids_of(tokenizer: Tokenizer) -> Callable[[str], int | None]:
    """From a token's text, as a server writes it, to its id; None for a text that several ids, or none, stand for.

    Special tokens, which are no text, are known by their names in the vocabulary, such as "<|endoftext|>".
    """
    found: dict[str, int | None] = {}
    for number in range(tokenizer.size):
        text = tokenizer.decode([number])
        found[text] = None if text in found else number
    return lambda text: found[text] if text in found else tokenizer.id_of(text)
