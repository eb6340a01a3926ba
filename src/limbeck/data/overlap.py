"""Test samples that are training samples too: figures on them show what was memorised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from limbeck.data.splits import DataSet, InMemory, Split

TOLD = 0.01
"""Share of a split from which on it is said how many of its samples are training samples."""


def overlap_note(data: DataSet) -> str:
    """What is to be said of training samples in the other splits; "" where they are few, or are not in memory."""
    counts = {name: (shared(data.train, part), len(part)) for name, part in data.parts if name != "train"}
    return "; ".join(
        f"{count:,} of {samples:,} {name} samples are training samples too: figures on them show what was memorised"
        for name, (count, samples) in counts.items()
        if count >= max(1, TOLD * samples)
    )


def shared(train: Split, other: Split) -> int:
    """How many samples of a split have the same inputs, byte for byte, as one of the training set."""
    if not (isinstance(train, InMemory) and isinstance(other, InMemory)):
        return 0
    own, others = train.by_name, other.by_name
    if own.keys() != others.keys():
        return 0
    pairs = [_alike(own[name], others[name]) for name in own]
    if any(x.shape[1:] != y.shape[1:] or x.dtype != y.dtype for x, y in pairs):
        return 0
    known = set(_digests([x for x, _ in pairs]))
    return sum(digest in known for digest in _digests([y for _, y in pairs]))


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The two as they are; sequences (N, L), which are padded to the longest of their split, at the smaller length."""
    if x.dim() != 2 or y.dim() != 2:
        return x, y
    length = min(x.shape[1], y.shape[1])
    return x[:, :length], y[:, :length]


def _digests(inputs: list[Tensor]) -> Iterator[bytes]:
    """A digest of each sample's inputs."""
    rows = [x.reshape(len(x), -1).contiguous().view(torch.uint8).numpy() for x in inputs]
    for parts in zip(*rows, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            digest.update(part.data)
        yield digest.digest()
