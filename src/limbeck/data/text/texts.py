"""A split of texts in memory: ids of tokens, padded to one length, and cut to a batch's longest when handed out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from limbeck.data.splits import InMemory
from limbeck.types import IGNORED, TEACHER, Inputs, each

IDS = "input_ids"
"""What models of text call the ids among their inputs; beside it `limbeck.types.MASK`."""
TEXT = "text"
"""What a student's description calls the dtype of texts."""
Padding = Literal["batch", "length"]
"""Up to what a batch is padded: its longest text, or the length of all."""


@dataclass(frozen=True)
class Texts(InMemory):
    """Texts as ids (N, L) of tokens in int32, where there is padding with a mask (N, L); targets (N,) or (N, L).

    Batches have both in int64. Of a batch that is padded to its longest text, what the others do not need is cut off.
    For a teacher with a tokenizer of its own the inputs hold the group `TEACHER` of the same form.

    Attributes:
        tokenizer: The tokenizer's digest, a part of the fingerprint.
        sizes: (N,) how many tokens each text has; None where all have L.
        padding: Up to what a batch is padded.
        buckets: Whether shuffled batches hold texts of like length.
        teacher_sizes: (N,) how many tokens of the teacher's own each text has; None where it has none.
        teacher_tokenizer: The digest of the teacher's own tokenizer.
        group: How many that follow one another stay together, such as a query and its texts.
    """

    tokenizer: str = ""
    sizes: Tensor | None = None
    padding: Padding = "length"
    buckets: bool = False
    teacher_sizes: Tensor | None = None
    teacher_tokenizer: str = ""
    group: int = 1

    @property
    def together(self) -> int:
        return self.group

    def subset(self, index: Tensor) -> Self:
        sizes, theirs = (None if one is None else one[index] for one in (self.sizes, self.teacher_sizes))
        return replace(super().subset(index), sizes=sizes, teacher_sizes=theirs)

    @property
    def fingerprint(self) -> str:
        return _digest(super().fingerprint, self.tokenizer, self.teacher_tokenizer)

    @property
    def taught(self) -> str:
        """What the outputs of a teacher with a tokenizer of its own are a function of, whatever the student reads."""
        theirs = InMemory(named(self.inputs)[TEACHER], self.targets)
        return _digest(theirs.fingerprint, self.teacher_tokenizer)

    @property
    def lengths(self) -> Tensor | None:
        return self.sizes if self.buckets else None

    def handed_out(self, inputs: Inputs, targets: Tensor, index: Tensor) -> tuple[Inputs, Tensor]:
        targets = targets.long()
        longest, theirs = (
            None if sizes is None or self.padding == "length" else int(sizes[index].max())
            for sizes in (self.sizes, self.teacher_sizes)
        )
        found = {name: _cut(x, theirs if name == TEACHER else longest) for name, x in named(inputs).items()}
        return found, targets[:, :longest] if targets.dim() == 2 else targets


def _digest(*parts: str) -> str:
    return hashlib.blake2b(" ".join(filter(None, parts)).encode(), digest_size=8).hexdigest()


def named(inputs: Inputs) -> Mapping[str, Inputs]:
    """The inputs of texts, which have names."""
    assert not isinstance(inputs, Tensor)
    return inputs


def _cut(inputs: Inputs, longest: int | None) -> Inputs:
    """Ids and masks (B, L) in int64, the first `longest` positions of them."""
    return each(inputs, lambda x: x[:, :longest].long())


def padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> Tensor:
    """(N, length) int32 of rows of ids that are no longer, filled up at their ends."""
    found = torch.full((len(rows), length), fill, dtype=torch.int32)
    for number, row in enumerate(rows):
        found[number, : len(row)] = torch.tensor(row, dtype=torch.int32)
    return found


def mask_of(sizes: Tensor, length: int) -> Tensor:
    """(N, length) booleans: which positions are no padding."""
    return torch.arange(length) < sizes[:, None]


def following(ids: Tensor, counts: Tensor) -> Tensor:
    """(N, L) the ids that follow each position, where they count; −100 elsewhere, and at the last position.

    Args:
        ids: (N, L) ids.
        counts: (N, L) whether a token is to be predicted.
    """
    targets = torch.full_like(ids, IGNORED)
    targets[:, :-1] = torch.where(counts[:, 1:], ids[:, 1:], IGNORED)
    return targets
