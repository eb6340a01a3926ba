"""Blocks of transformers: attention with rotary positions, and a perceptron, each behind a norm and beside a skip."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limbeck.errors import RequestError

BASE = 10_000.0
"""The longest wave of rotary positions, in units of 2π tokens."""
HIDDEN = 4
"""Width of a block's perceptron, in widths of the block."""


class Attention(nn.Module):
    """Self-attention, softmax(q·kᵀ/√d)·v by head, with queries and keys turned by their positions.

    Args:
        dim: Width of the tokens.
        heads: Number of heads; they share the width.
        rotary: Whether positions turn queries and keys; without, they have to be in the tokens.

    Source: Vaswani et al., 2017, arXiv:1706.03762; rotary positions: Su et al., 2021, arXiv:2104.09864.
    """

    def __init__(self, dim: int, heads: int, rotary: bool) -> None:
        super().__init__()
        if dim % heads or (rotary and dim // heads % 2):
            even = " into heads of an even width" if rotary else ""
            raise RequestError(f"dim {dim} does not divide{even} by {heads} heads; choose another dim or heads")
        self.heads, self.rotary = heads, rotary
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, allowed: Tensor | None, causal: bool) -> Tensor:
        """(B, L, D) → (B, L, D); a query sees the keys that are allowed, (B, 1, L, L), or with `causal` the earlier."""
        q, k, v = self.query_key_value(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = turned(q), turned(k)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal and allowed is None)
        found: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)).

    Args:
        dim: Width of the tokens.
        heads: Heads of the attention.
        rotary: As for `Attention`.
        dropout: Probability of zeroing a number before it is added.
    """

    def __init__(self, dim: int, heads: int, rotary: bool, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, rotary)
        self.norm = nn.LayerNorm(dim)
        self.perceptron = nn.Sequential(nn.Linear(dim, HIDDEN * dim), nn.GELU(), nn.Linear(HIDDEN * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, allowed: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), allowed, causal))
        found: Tensor = x + self.dropout(self.perceptron(self.norm(x)))
        return found


def through(blocks: Iterable[nn.Module], x: Tensor, allowed: Tensor | None, *, causal: bool, recompute: bool) -> Tensor:
    """(B, L, D) through blocks, one after the other.

    Args:
        blocks: `Block`s.
        x: What the first one gets.
        allowed, causal: As for `Attention`.
        recompute: Where gradients are wanted, keep each block's input alone, and compute the rest anew in the backward
            pass, with the same dropout.
    """
    for block in blocks:
        if recompute and torch.is_grad_enabled():
            x = checkpoint(block, x, allowed, causal, use_reentrant=False)
        else:
            x = block(x, allowed, causal)
    return x


def turned(x: Tensor) -> Tensor:
    """(B, H, L, d) with each pair of numbers (i, i + d/2) at position p turned by the angle p · BASE^(−2i/d)."""
    half = x.shape[-1] // 2
    waves = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(BASE) / half))
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * waves
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


def allowed_keys(mask: Tensor | None, causal: bool) -> Tensor | None:
    """Which keys each query sees, (B, 1, L, L), by a mask (B, L) of the tokens that are no padding.

    A token sees itself in any case, so that no softmax is over nothing. Without a mask None.
    """
    if mask is None:
        return None
    length = mask.shape[1]
    place = torch.arange(length, device=mask.device)
    seen = mask[:, None, None, :].bool()
    if causal:
        seen = seen & (place[:, None] >= place)
    return seen | (place[:, None] == place)


def start(network: nn.Module, depth: int) -> None:
    """Draw a transformer's start: N(0, .02), of what is added to the skip by 1/√(2·depth) smaller; biases 0.

    Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            added = name.endswith(("attention.output", "perceptron.2"))
            nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if added else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
