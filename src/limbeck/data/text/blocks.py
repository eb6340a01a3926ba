"""Documents packed to blocks of tokens, for language models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from limbeck.data.text.texts import IDS, Texts, following
from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError


def blocks(documents: Sequence[str], tokenizer: Tokenizer, length: int) -> Texts:
    """Documents one after the other, each with an end token, cut into blocks of `length` tokens.

    The target of a position is the token that follows in its block; no document predicts the first token of the next,
    and the last position of a block has no target. The last block is filled up with padding, which is no target.

    Raises:
        RequestError: The documents do not fill a block of two tokens.
    """
    rows = [[*row, tokenizer.end] for row in tokenizer.encode(documents)]
    stream = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int32)
    if len(stream) < 2 or length < 2:
        raise RequestError(f"{len(stream):,} tokens do not fill one block of {length}; give more text")
    real = len(stream)
    ids = torch.nn.functional.pad(stream, (0, -real % length), value=tokenizer.pad).view(-1, length)
    first = torch.zeros(ids.numel(), dtype=torch.bool)
    first[torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)] = True
    counts = (~first & (torch.arange(ids.numel()) < real)).view(-1, length)
    return Texts({IDS: ids}, following(ids, counts), tokenizer.digest)
