"""The folder of a Hugging Face model: its weights, and what lies beside them, such as a tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from limbeck.models.foreign.hugging_face_sentences import files_behind
from limbeck.models.pixels import Pixels

CONFIG = "config.json"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
VOCABULARY = (
    "tokenizer.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "*.spm",
    "spiece.model",
    "sentencepiece*.model",
    "tokenizer.model",
)
"""What says which id a token has."""
TOKENIZER = (*VOCABULARY, "tokenizer_config.json", "special_tokens_map.json")
"""All that is said of a tokenizer, but for the templates of chats."""
_BESIDE = (
    *TOKENIZER,
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
)
"""What a model's inputs are made by: it goes with every model that was made from this one."""

Beside = dict[str, bytes]


def weights_in(folder: Path) -> list[Path]:
    """The files of weights in a folder."""
    return [file for pattern in _WEIGHTS for file in folder.glob(pattern)] if folder.is_dir() else []


def has_weights(folder: str | Path) -> bool:
    """Whether a folder holds weights beside its configuration."""
    return bool(weights_in(Path(folder)))


def is_there(path: str | Path) -> bool:
    """Whether there is a model: a folder with config.json, or a configuration's own file."""
    return (Path(path) / CONFIG).is_file() or Path(path).is_file()


def beside(folder: Path) -> Beside:
    """The tokenizer and the image processor of a folder, by the names of their files."""
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for pattern in _BESIDE for file in sorted(folder.glob(pattern))}


def without(files: Beside, patterns: Sequence[str]) -> Beside:
    """The files whose names are none of these."""
    return {name: content for name, content in files.items() if not any(fnmatch(name, pattern) for pattern in patterns)}


def digest_of_folder(folder: Path) -> str:
    """A digest of a model's configuration and weights, and of what follows it where it encodes sentences."""
    digest = hashlib.sha256()
    for file in sorted({folder / CONFIG, *weights_in(folder), *files_behind(folder)}):
        if file.is_file():
            with file.open("rb") as content:
                digest.update(
                    f"{file.relative_to(folder)} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()


def pixels_of(folder: Path) -> Pixels | None:
    """What pixels its weights were trained on, as its image processor says."""
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        mean, std = tuple(map(float, said["image_mean"])), tuple(map(float, said["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Pixels(mean, std, "its preprocessor_config.json says") if all(std) else None
