"""The smallest network of texts: the mean of its tokens' vectors, which classifies them or embeds them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.models.networks.transformer import known, mean_of_tokens
from limbeck.options import Share, Width

_FACTORS = 1_000_003, 8_191
"""Primes by which two ids that follow one another choose a row of the pairs' table."""


def bag_of_embeddings(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocab: Width | None = None,
    dim: Width = 64,
    weighted: bool = False,
    bigrams: Width | None = None,
    hidden: Width | None = None,
    dropout: Share = 0.0,
) -> Bag:
    """Logits, or an embedding, of texts: the mean of its tokens' vectors, then linear; their order plays no part.

    Args:
        input_shape: (L,), the tokens of a sample; any length is read.
        classes: Number of logits, or the width of the embedding.
        vocab: The vocabulary's size; that of the data where a recipe leaves it out.
        dim: Width of a token's vector.
        weighted: Whether each token has a weight in the mean, which is learned.
        bigrams: Rows of a table for pairs of tokens that follow one another, whose mean is added; a pair's row is found
            by hashing, so that pairs share rows.
        hidden: Width of a hidden layer, whose outputs are added to the mean before the last layer.
        dropout: Probability of zeroing a number of the mean in training.

    Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016, arXiv:1607.01759.

    >>> from limbeck.models import parameter_count
    >>> parameter_count(bag_of_embeddings(input_shape=(16,), classes=6, vocab=100, dim=8))
    854
    """
    return Bag(known(vocab, "bag_of_embeddings"), dim, classes, dropout, weighted, bigrams, hidden)


class Bag(nn.Module):
    """What `bag_of_embeddings` builds."""

    def __init__(
        self,
        vocab: int,
        dim: int,
        classes: int,
        dropout: float,
        weighted: bool = False,
        bigrams: int | None = None,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.weights = nn.Embedding(vocab, 1) if weighted else None
        self.bigrams = None if bigrams is None else nn.Embedding(bigrams, dim)
        self.hidden = None if hidden is None else _hidden(dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)
        nn.init.normal_(self.tokens.weight, std=0.1)
        for table in (self.weights, self.bigrams):
            if table is not None:  # they begin without effect
                nn.init.zeros_(table.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, L) ids, and where there is padding a mask (B, L) of the tokens that are none → (B, C)."""
        mean = mean_of_tokens(self.tokens(input_ids), self._counts(input_ids, attention_mask))
        if self.bigrams is not None:
            first, second = _FACTORS
            pairs = (input_ids[:, :-1] * first + input_ids[:, 1:] * second) % self.bigrams.num_embeddings
            behind = torch.ones_like(pairs) if attention_mask is None else attention_mask[:, 1:]
            mean = mean + mean_of_tokens(self.bigrams(pairs), behind)
        if self.hidden is not None:
            mean = mean + self.hidden(mean)
        logits: Tensor = self.classifier(self.dropout(mean))
        return logits

    def _counts(self, ids: Tensor, mask: Tensor | None) -> Tensor | None:
        """(B, L) by how much each token counts; None where all count alike."""
        if self.weights is None:
            return mask
        weights = F.softplus(self.weights(ids).squeeze(-1))
        # Over their sum, which a text of rare weights may bring below 1, where `mean_of_tokens` takes 1.
        counts = weights if mask is None else weights * mask
        return counts / counts.sum(1, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)


def _hidden(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim))
