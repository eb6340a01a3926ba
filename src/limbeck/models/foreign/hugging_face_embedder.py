"""An encoder as a model of embeddings: one vector a text or image, pooled over its tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.errors import unknown

POOLINGS = ("mean", "first", "last", "max")
POOLER, PLAIN = "pooler", {"add_pooling_layer": False}
"""An encoder's own trained layer behind the class token, which nothing here reads, and how it is left out."""


class Embedder(nn.Module):
    """(B, D): one of an encoder's last tokens (B, L, D), or what those that its mask counts have in common.

    Args:
        encoder: A model of transformers that gives `last_hidden_state`.
        pooling: "mean" of the tokens that count, "max" of each number over them, "first" for the class token, or "last"
            of those that count.
        normalize: Whether vectors have length 1.
        dense: Layers between pooling and normalization, (B, D) → (B, D').
    """

    def __init__(
        self, encoder: nn.Module, pooling: str = "mean", normalize: bool = False, dense: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.encoder, self.pooling, self.normalize = encoder, pooling, normalize
        self.dense = nn.ModuleList(dense)

    def forward(self, inputs: Tensor | None = None, *, attention_mask: Tensor | None = None, **named: Tensor) -> Tensor:
        if inputs is not None:
            named[self.main_input_name] = inputs
        if attention_mask is not None:
            named["attention_mask"] = attention_mask
        found = self.encoder(**named).last_hidden_state
        vectors = pooled(found.flatten(2).transpose(1, 2) if found.dim() == 4 else found, attention_mask, self.pooling)
        for layer in self.dense:
            vectors = layer(vectors)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def around(self, encoder: nn.Module) -> Embedder:
        """The same around another encoder, with copies of its layers."""
        return Embedder(encoder, self.pooling, self.normalize, [copy.deepcopy(layer) for layer in self.dense])

    @property
    def main_input_name(self) -> str:
        """What the encoder calls its inputs."""
        return str(self.encoder.main_input_name)

    @property
    def config(self) -> Any:
        """The encoder's configuration."""
        return self.encoder.config

    def extra_repr(self) -> str:
        return f"pooling={self.pooling}, normalize={self.normalize}"


def pooled(tokens: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """(B, L, D) → (B, D), over the tokens that a mask (B, L) counts; all of them without one."""
    if pooling == "first":
        return tokens[:, 0]
    if mask is None:
        return {"mean": tokens.mean(1), "last": tokens[:, -1], "max": tokens.amax(1)}[pooling]
    counts = mask.to(tokens.dtype)[..., None]
    if pooling == "mean":
        return (tokens * counts).sum(1) / counts.sum(1).clamp(min=1)
    if pooling == "max":
        return tokens.masked_fill(counts == 0, torch.finfo(tokens.dtype).min).amax(1)
    last = (mask.long() * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def reads_ids(model: nn.Module) -> bool:
    """Whether a model reads numbers of tokens, which are whole, and not pixels."""
    return getattr(model, "main_input_name", None) == "input_ids"


def first_inputs(model: nn.Module, shape: tuple[int, ...], samples: int = 1) -> Tensor:
    """Zeros of the shape and the type that a model reads."""
    return torch.zeros(samples, *shape, dtype=torch.long if reads_ids(model) else torch.float32)
