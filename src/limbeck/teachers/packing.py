"""Small whole numbers packed at the bits that they need, and logarithms as such numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def bits_for(count: int) -> int:
    """The bits of the numbers 0 … count − 1.

    >>> bits_for(32_000)
    15
    """
    return max(1, (count - 1).bit_length())


def pack(numbers: Tensor, bits: int) -> Tensor:
    """(..., n) numbers, of `bits` bits each, as (..., ⌈n · bits / 8⌉) bytes, the lowest bit first.

    >>> pack(torch.tensor([5, 1]), bits=3)
    tensor([13], dtype=torch.uint8)
    """
    shifts = torch.arange(bits, device=numbers.device)
    flags = (numbers.long().unsqueeze(-1) >> shifts & 1).flatten(-2)
    padded = torch.nn.functional.pad(flags, (0, -flags.shape[-1] % 8))
    places = 1 << torch.arange(8, device=numbers.device)
    return (padded.reshape(*padded.shape[:-1], -1, 8) * places).sum(-1).to(torch.uint8)


def unpack(packed: Tensor, count: int, bits: int) -> Tensor:
    """(..., count) int64 numbers that `pack` packed.

    >>> unpack(torch.tensor([13], dtype=torch.uint8), count=2, bits=3)
    tensor([5, 1])
    """
    at = torch.arange(count, device=packed.device) * bits
    padded = torch.nn.functional.pad(packed, (0, 4))
    found = torch.zeros(*packed.shape[:-1], count, dtype=torch.int64, device=packed.device)
    for byte in range(-(-(bits + 7) // 8)):
        found |= padded[..., at // 8 + byte].long() << 8 * byte
    return found >> at % 8 & (1 << bits) - 1


def coded(logarithms: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Logarithms as the nearest of 2^bits even steps from `low` to `high`; beyond, as the ends."""
    most = (1 << bits) - 1
    share = (logarithms.clamp(low, high) - low) / (high - low)
    return (share * most).round().long()


def decoded(codes: Tensor, low: float, high: float, bits: int) -> Tensor:
    """What `coded` gave, within half a step, in fp32."""
    return codes * ((high - low) / ((1 << bits) - 1)) + low
