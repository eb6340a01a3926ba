"""From texts to ids of tokens and back: bytes, byte-pair encoding trained here, and tokenizers of others from disk."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from limbeck.atomic import put
from limbeck.errors import RequestError, as_request, counted
from limbeck.folders import cache_root

FILE = "tokenizer.json"
"""What a tokenizer's file is called in a run folder and in an export."""
BPE, UNCASED = "bpe", "bpe-uncased"
"""What those that are trained here are called."""
PAD, END = "<|pad|>", "<|end|>"
"""The special tokens of what is trained here: padding, and the end of a document."""
_BYTES = {"kind": "bytes", "pad": 256, "end": 257}
_PADS = (PAD, "[PAD]", "<pad>", "<|padding|>")
_ENDS = (
    END, "<|endoftext|>", "</s>", "[SEP]", "<eos>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "[EOS]", "<|im_end|>",
)  # fmt: skip
"""What others call them, the most common first."""


class Tokenizer(Protocol):
    """What makes ids of texts.

    Attributes:
        size: Number of ids, V.
        pad: The id that fills up.
        end: The id behind a document.
        digest: Hexadecimal digest of all that its ids are a function of.
        specials: The special tokens that can be written out.
    """

    @property
    def size(self) -> int: ...

    @property
    def pad(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def specials(self) -> Sequence[str]: ...

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """The ids of each text, without special ones: what is written like a special token is text as any other.

        Args:
            texts: The texts.
            special: Read special tokens that are written out in them, for texts that no user wrote: a template's.
        """

    def framed(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        """The ids of each text as a classifier reads it, `length` at most, and how many texts are cut for that.

        With the special ids that the tokenizer sets around a text, such as [CLS] and [SEP]; where it sets none, with an
        end behind the text.
        """

    def id_of(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary, such as a special one; None where no token is called so."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special ones stand for nothing."""

    def token_bytes(self) -> Tensor | None:
        """(V,) how many bytes of text each id stands for, special ones for none; None where that is not known."""

    def save(self, folder: Path) -> None:
        """Write it as `FILE`, from which `read_tokenizer` makes it again."""


class ByteTokenizer:
    """The bytes of a text in UTF-8 as ids 0–255, 256 for padding, 257 for the end of a document.

    >>> ByteTokenizer().encode(["Aé"])
    [[65, 195, 169]]
    """

    size, pad, end = 258, 256, 257
    digest = "bytes"
    specials: Sequence[str] = ()

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        return [list(text.encode("utf-8", "surrogatepass")) for text in texts]

    def framed(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        return _ended(self, texts, length)

    def id_of(self, token: str) -> int | None:
        return None

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(one for one in ids if one < 256).decode("utf-8", "replace")

    def token_bytes(self) -> Tensor:
        return torch.tensor([1] * 256 + [0, 0])

    def save(self, folder: Path) -> None:
        put(folder / FILE, json.dumps(_BYTES).encode())


class FastTokenizer:
    """A tokenizer of the `tokenizers` package.

    Args:
        content: Its JSON, as `tokenizer.json` holds it.
        where: What it is called in errors.
        kept: Of one that was reduced, the ids that its tokens had before, in order; () for all others.

    Raises:
        RequestError: The package is not installed, or the content is no tokenizer, or has no token for the end.
    """

    def __init__(self, content: str, where: str, kept: Sequence[int] = ()) -> None:
        self.content, self.kept = content, tuple(kept)
        with as_request(lambda reason: f"cannot read the tokenizer {where}: {reason}"):
            self._own = tokenizers_package().Tokenizer.from_str(content)
        self._own.no_truncation()
        self._own.no_padding()
        self._own.encode_special_tokens = True  # a user's text that holds one is no command
        end = self._named(_ENDS)
        if end is None:
            raise RequestError(f"the tokenizer {where} has no token for the end of a text; it needs one of {_ENDS}")
        self.end = end
        pad = self._named(_PADS)
        self.pad = end if pad is None else pad

    @property
    def size(self) -> int:
        ids: dict[str, int] = self._own.get_vocab(with_added_tokens=True)
        return max(ids.values()) + 1

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        self._own.encode_special_tokens = not special
        found = [one.ids for one in self._own.encode_batch(_whole(texts), add_special_tokens=False)]
        self._own.encode_special_tokens = True
        return found

    @cached_property
    def specials(self) -> Sequence[str]:
        added = self._own.get_added_tokens_decoder().values()
        return tuple(one.content for one in added if one.special)

    def framed(self, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
        around = self._own.num_special_tokens_to_add(False)
        if not around:
            return _ended(self, texts, length)
        _check_room(length, around)
        self._own.enable_truncation(length)
        found = self._own.encode_batch(_whole(texts))
        self._own.no_truncation()
        return [one.ids for one in found], sum(bool(one.overflowing) for one in found)

    def id_of(self, token: str) -> int | None:
        found: int | None = self._own.token_to_id(token)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        found: str = self._own.decode(list(ids))
        return found

    def token_bytes(self) -> Tensor | None:
        described = json.loads(self.content)
        if "ByteLevel" not in json.dumps([described.get("pre_tokenizer"), described.get("decoder")]):
            return None
        sizes = torch.zeros(self.size, dtype=torch.long)
        added = {one["content"]: one["special"] for one in described.get("added_tokens", [])}
        for token, number in self._own.get_vocab(with_added_tokens=True).items():
            if token not in added:
                sizes[number] = len(token)  # a letter a byte
            elif not added[token]:
                sizes[number] = len(token.encode())
        return sizes

    def save(self, folder: Path) -> None:
        put(folder / FILE, self.content.encode())

    def _named(self, names: Sequence[str]) -> int | None:
        found = map(self.id_of, names)
        return next((one for one in found if one is not None), None)


def _whole(texts: Sequence[str]) -> list[str]:
    """Texts as UTF-8 can hold them: for half a character, as JSON may write one, stands U+FFFD."""
    return [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]


def _ended(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
    """The ids of texts, each with an end, and how many are cut."""
    _check_room(length, 1)
    ids = tokenizer.encode(texts)
    return [[*row[: length - 1], tokenizer.end] for row in ids], sum(len(row) >= length for row in ids)


def _check_room(length: int, around: int) -> None:
    if length <= around:
        raise RequestError(
            f"the tokenizer sets {counted(around, 'token')} around a text, so that length {length} holds none"
        )


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from its file, or from a folder with one, also of Hugging Face; nothing is downloaded.

    Raises:
        RequestError: There is none, or it cannot be read; a package is not installed.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise RequestError(f"there is no tokenizer {file}; give a tokenizer.json, or a folder with one")
    with as_request(lambda reason: f"cannot read the tokenizer {file}: {reason}"):
        content = file.read_text(encoding="utf-8")
        described = json.loads(content)
    if described == _BYTES:
        return ByteTokenizer()
    return FastTokenizer(content, str(file))


def trained_bpe(texts: Sequence[str], vocab: int, uncased: bool = False) -> Tokenizer:
    """Byte-pair encoding of so many tokens, trained on the texts once and kept in limbeck's cache.

    Of an uncased one, a word has the same tokens in lower and upper case, and at the beginning of a text.

    Source: Sennrich et al., ACL 2016, arXiv:1508.07909; over bytes: Radford et al., 2019.

    Raises:
        RequestError: Fewer tokens than there are bytes, or the package is not installed.
    """
    if vocab < 256 + 2:
        raise RequestError(f"vocab is {vocab}, and a tokenizer over bytes needs 258 or more; tokenizer: bytes has 258")
    package = tokenizers_package()
    kind = UNCASED if uncased else BPE
    digest = hashlib.sha256(json.dumps([kind, vocab, package.__version__]).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    place = cache_root() / "tokenizers" / digest.hexdigest()[:32]
    if not (place / FILE).is_file():
        place.mkdir(parents=True, exist_ok=True)
        put(place / FILE, _train(package, texts, vocab, uncased).encode())
    return read_tokenizer(place)


def _train(package: Any, texts: Sequence[str], vocab: int, uncased: bool) -> str:
    own = package.Tokenizer(package.models.BPE())
    if uncased:
        own.normalizer = package.normalizers.Lowercase()
    own.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=uncased)
    own.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    own.train_from_iterator(_whole(texts), trainer)
    content: str = own.to_str()
    return content


def tokenizers_package() -> Any:
    """The package `tokenizers`, or RequestError where it is not installed."""
    try:
        return importlib.import_module("tokenizers")
    except ModuleNotFoundError:
        raise RequestError(
            "this tokenizer needs the extra: pip install 'limbeck[text]'; tokenizer: bytes needs nothing"
        ) from None


def made_tokenizer(name: str, vocab: int, texts: Sequence[str]) -> Tokenizer:
    """A tokenizer as data options name it: "bytes", "bpe" or "bpe-uncased", trained on the texts, or a file or folder.

    Raises:
        RequestError: It cannot be made.
    """
    if name == "bytes":
        return ByteTokenizer()
    if name in (BPE, UNCASED):
        return trained_bpe(texts, vocab, uncased=name == UNCASED)
    return read_tokenizer(Path(name))
