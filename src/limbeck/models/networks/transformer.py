"""Small transformers for text: a causal decoder that is a language model, and an encoder that classifies."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.models.networks.attention import Block, allowed_keys, start, through
from limbeck.models.output_head import OutputHead
from limbeck.options import Share, Width

Positions = Literal["rotary", "learned"]
"""How a transformer knows the order of its tokens."""


def transformer(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    dim: Width = 128,
    depth: Width = 2,
    heads: Width = 4,
    positions: Positions = "rotary",
    dropout: Share = 0.0,
) -> Decoder:
    """A causal language model: ids of tokens (B, L) to logits (B, L, V) of the tokens that follow.

    Args:
        input_shape: (L,), the tokens of a sample.
        classes: V, the vocabulary's size.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads of each.
        positions: "rotary", which any length may follow, or "learned", up to L.
        dropout: Probability of zeroing a number in training, behind the embedding and before each sum.

    >>> from limbeck.models import parameter_count
    >>> parameter_count(transformer(input_shape=(16,), classes=100, dim=8, depth=1, heads=2))
    1688
    """
    return Decoder(Embedded(classes, dim, _length(input_shape, positions), dropout), depth, heads)


def text_encoder(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocab: Width | None = None,
    dim: Width = 128,
    depth: Width = 2,
    heads: Width = 4,
    positions: Positions = "rotary",
    dropout: Share = 0.0,
) -> Encoder:
    """A classifier of texts: a transformer that looks both ways, the mean over tokens that are no padding, linear.

    Args:
        input_shape: (L,), the tokens of a sample.
        classes: Number of logits.
        vocab: The vocabulary's size; that of the data where a recipe leaves it out.
        dim: Width of the tokens.
        depth: Number of blocks.
        heads: Attention heads of each.
        positions: "rotary", which any length may follow, or "learned", up to L.
        dropout: Probability of zeroing a number in training, behind the embedding, before each sum and at the end.
    """
    embedded = Embedded(known(vocab, "text_encoder"), dim, _length(input_shape, positions), dropout)
    return Encoder(embedded, classes, depth, heads)


class Embedded(nn.Module):
    """Ids (B, L) → (B, L, D): each token's vector, with that of its position where positions are learned."""

    def __init__(self, vocab: int, dim: int, length: int | None, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = None if length is None else nn.Embedding(length, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        if self.positions is not None:
            if ids.shape[1] > self.positions.num_embeddings:
                raise RequestError(
                    f"these texts have {ids.shape[1]} tokens, and {self.positions.num_embeddings} positions were "
                    "learned; give shorter ones, or positions: rotary"
                )
            x = x + self.positions(torch.arange(ids.shape[1], device=ids.device))
        found: Tensor = self.dropout(x)
        return found


class Decoder(nn.Module):
    """What `transformer` builds; its head shares the weights of the embedding."""

    def __init__(self, embedded: Embedded, depth: int, heads: int) -> None:
        super().__init__()
        dim, rotary, dropout = embedded.tokens.embedding_dim, embedded.positions is None, embedded.dropout.p
        self.embedded = embedded
        self.blocks = nn.ModuleList(Block(dim, heads, rotary, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        start(self, depth)

    output_head = OutputHead("norm", "embedded.tokens.weight")
    gradient_checkpointing = False

    @property
    def head_weight(self) -> Tensor:
        """(V, D): logits are the products of its rows with what `norm` gives."""
        return self.embedded.tokens.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, L) ids, and where there is padding a mask (B, L) of the tokens that are none → (B, L, V)."""
        x, allowed = self.embedded(input_ids), allowed_keys(attention_mask, causal=True)
        x = through(self.blocks, x, allowed, causal=True, recompute=self.gradient_checkpointing and self.training)
        return F.linear(self.norm(x), self.head_weight)


class Encoder(nn.Module):
    """What `text_encoder` builds."""

    gradient_checkpointing = False

    def __init__(self, embedded: Embedded, classes: int, depth: int, heads: int) -> None:
        super().__init__()
        dim, rotary, dropout = embedded.tokens.embedding_dim, embedded.positions is None, embedded.dropout.p
        self.embedded = embedded
        self.blocks = nn.ModuleList(Block(dim, heads, rotary, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)
        start(self, depth)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, L) ids, and where there is padding a mask (B, L) of the tokens that are none → (B, C)."""
        x, allowed = self.embedded(input_ids), allowed_keys(attention_mask, causal=False)
        x = through(self.blocks, x, allowed, causal=False, recompute=self.gradient_checkpointing and self.training)
        logits: Tensor = self.classifier(self.dropout(mean_of_tokens(self.norm(x), attention_mask)))
        return logits


def mean_of_tokens(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, L, D) → (B, D): the mean over the tokens that are no padding; 0 where there is none."""
    if mask is None:
        return x.mean(1)
    kept = mask.to(x.dtype).unsqueeze(-1)
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def known(vocab: int | None, name: str) -> int:
    """The size of a vocabulary that must be given.

    Raises:
        RequestError: It is not.
    """
    if vocab is None:
        raise RequestError(f"{name} needs the size of its vocabulary, vocab: 2048; text data give it by themselves")
    return vocab


def _length(input_shape: tuple[int, ...], positions: Positions) -> int | None:
    """How many positions are learned; None for none."""
    if len(input_shape) != 1:
        raise RequestError(
            f"a transformer reads the ids of tokens, of input_shape (L,), not {tuple(input_shape)}; see limbeck list "
            "data for texts"
        )
    return input_shape[0] if positions == "learned" else None
