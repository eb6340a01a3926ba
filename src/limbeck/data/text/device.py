"""A tokenizer as a device reads it: one file of the `tokenizers` package that cuts, frames and pads by itself."""

from __future__ import annotations

from typing import Any

from limbeck.data.text.tokenizers import END, PAD, ByteTokenizer, FastTokenizer, Tokenizer, tokenizers_package
from limbeck.errors import RequestError


def for_device(tokenizer: Tokenizer, length: int, *, framed: bool) -> str:
    """The JSON of a tokenizer whose `encode_batch` gives what a student reads.

    Texts are cut to `length` tokens, and a batch is padded to its longest. Special tokens that a text writes out are
    read as such by default; `encode_special_tokens`, which the file cannot hold, leaves them text.

    Args:
        tokenizer: The one that the student was trained with.
        length: Tokens of a text at most.
        framed: Set special tokens around a text, as a classifier reads it; else a text's end is kept, where a language
            model goes on.

    Raises:
        RequestError: The extra is not installed, or the tokenizer is one of your own.
    """
    package = tokenizers_package()
    if isinstance(tokenizer, ByteTokenizer):
        own = _bytes(package)
    elif isinstance(tokenizer, FastTokenizer):
        own = package.Tokenizer.from_str(tokenizer.content)
    else:
        raise RequestError(f"{type(tokenizer).__name__} cannot be written for a device; use bytes, bpe or a file")
    if framed and not own.num_special_tokens_to_add(False):
        end = own.id_to_token(tokenizer.end)
        own.post_processor = package.processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.end)]
        )
    if not framed:
        own.post_processor = package.processors.ByteLevel(trim_offsets=False)  # which sets no token around a text
    own.enable_truncation(length, direction="right" if framed else "left")
    own.enable_padding(pad_id=tokenizer.pad, pad_token=own.id_to_token(tokenizer.pad), direction="right")
    content: str = own.to_str()
    return content


def _bytes(package: Any) -> Any:
    """The 256 bytes as a tokenizer of the package."""
    letters = dict(zip(range(256), _letters(), strict=True))
    own = package.Tokenizer(package.models.BPE({letter: byte for byte, letter in letters.items()}, []))
    own.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own.decoder = package.decoders.ByteLevel()
    own.add_special_tokens([PAD, END])
    return own


def _letters() -> list[str]:
    """The letter by which byte-level tokenizers write each byte: itself where it can be printed, else one from 256 on.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (GPT-2's encoding of bytes).
    """
    printed = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]
