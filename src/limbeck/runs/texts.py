"""Students of texts: what their files say of their inputs, and the tokenizer beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.data import DataSet
from limbeck.data.text.texts import TEXT
from limbeck.data.text.tokenizers import FILE, Tokenizer, read_tokenizer
from limbeck.errors import RequestError


def of_texts(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a student's description says of its texts; None for a student of something else."""
    sample = about["input"].get("sample") or {}
    return dict(sample) if sample.get("dtype") == TEXT else None


def refuse_texts(data: DataSet, run: Path) -> None:
    """Raise RequestError for a student of texts, where images or vectors are shipped."""
    if data.tokenizer is not None:
        raise RequestError(
            f"limbeck ship takes students of images and vectors, and that of {run} reads texts; limbeck export {run} "
            "--onnx writes it with its tokenizer"
        )


def tokenizer_of(source: Path) -> Tokenizer:
    """The tokenizer of a run, of one student of a comparison, or of an export.

    Raises:
        RequestError: There is none in the folder, nor in the comparison's.
    """
    folder = source if source.is_dir() else source.parent
    place = next((one for one in (folder, folder.parent) if (one / FILE).is_file()), None)
    if place is None:
        raise RequestError(f"{folder} holds no {FILE}, by which its student reads texts; bring it back from the run")
    return read_tokenizer(place)
