"""Documents packed to blocks of tokens, for language models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from limbeck.data.text.texts import IDS, Texts, following
from limbeck.data.text.tokenizers import Tokenizer
from limbeck.errors import RequestError, counted
from limbeck.types import IGNORED


def blocks(documents: Sequence[str], tokenizer: Tokenizer, length: int) -> Texts:
    """Documents one after the other, each with an end token, cut into blocks of `length` tokens.

    The target of a position is the token that follows in its block; no document predicts the first token of the next,
    and the last position of a block has no target. The last block is filled up with padding, which is no target.

    Raises:
        RequestError: No token has another one before it in its document and block.
    """
    rows = [[*row, tokenizer.end] for row in tokenizer.encode(documents)]
    stream = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int32)
    real = len(stream)
    ids = torch.nn.functional.pad(stream, (0, -real % length), value=tokenizer.pad).view(-1, length)
    first = torch.zeros(ids.numel(), dtype=torch.bool)
    first[torch.tensor([0, *map(len, rows)]).cumsum(0)[:-1]] = True
    counts = (~first & (torch.arange(ids.numel()) < real)).view(-1, length)
    targets = following(ids, counts)
    if not (targets != IGNORED).any():
        raise RequestError(
            f"blocks of {counted(length, 'token')} hold nothing to predict in a text of {counted(real, 'token')}; give "
            "more text, or blocks of 2 tokens or more (length)"
        )
    return Texts({IDS: ids}, targets, tokenizer.digest)
