"""The smallest classifier of texts."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.models.networks.transformer import known, mean_of_tokens
from limbeck.options import Share, Width


def bag_of_embeddings(
    *,
    input_shape: tuple[int, ...],
    classes: int,
    vocab: Width | None = None,
    dim: Width = 64,
    dropout: Share = 0.0,
) -> Bag:
    """A classifier of texts: the mean of its tokens' vectors, then linear; the order of the tokens plays no part.

    Args:
        input_shape: (L,), the tokens of a sample; any length is read.
        classes: Number of logits.
        vocab: The vocabulary's size; that of the data where a recipe leaves it out.
        dim: Width of a token's vector.
        dropout: Probability of zeroing a number of the mean in training.

    Source: Joulin et al., Bag of Tricks for Efficient Text Classification, 2016, arXiv:1607.01759.

    >>> from limbeck.models import parameter_count
    >>> parameter_count(bag_of_embeddings(input_shape=(16,), classes=6, vocab=100, dim=8))
    854
    """
    return Bag(known(vocab, "bag_of_embeddings"), dim, classes, dropout)


class Bag(nn.Module):
    """What `bag_of_embeddings` builds."""

    def __init__(self, vocab: int, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, dim)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, classes)
        nn.init.normal_(self.tokens.weight, std=0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(B, L) ids, and where there is padding a mask (B, L) of the tokens that are none → (B, C)."""
        logits: Tensor = self.classifier(self.dropout(mean_of_tokens(self.tokens(input_ids), attention_mask)))
        return logits
