"""Random numbers without a state: each a function of what it is drawn for."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.seeds import derive

_GOLDEN, _MIX1, _MIX2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""The odd constants of SplitMix64 as signed 64-bit numbers."""


def draws(seed: int, view: int, index: Tensor, count: int, what: str = "view") -> Tensor:
    """`count` numbers in [0, 1) for each sample, a pure function of (seed, view, index, what).

    The same whatever the order, batch, process or device: a 64-bit counter is hashed, no generator is advanced.

    Args:
        seed: Of the run.
        view: Which augmented version.
        index: (B,) int64 positions in the data set, on the CPU.
        count: Numbers a sample.
        what: Separates draws for different purposes.

    Returns:
        (B, count) fp32 on the CPU.

    Source: the finaliser of SplitMix64; Steele, Lea, Flood: Fast splittable pseudorandom number generators,
        OOPSLA 2014.

    >>> a = draws(0, 3, torch.tensor([5, 7]), 2)
    >>> torch.equal(a.flip(0), draws(0, 3, torch.tensor([7, 5]), 2))
    True
    """
    counter = index[:, None] * count + torch.arange(count, device=index.device)
    z = counter * _GOLDEN + derive(seed, what, view)  # int64 wraps around, as it must
    z = (z ^ _shifted(z, 30)) * _MIX1
    z = (z ^ _shifted(z, 27)) * _MIX2
    z = z ^ _shifted(z, 31)
    return _shifted(z, 40).float() / 2**24


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
