"""Losses of language models on hidden states and a head: logits are made of a few tokens at a time, and never kept."""

from limbeck.losses.tokens.head import Head, Projected
from limbeck.losses.tokens.token_loss import token_cross_entropy, token_loss

__all__ = ["Head", "Projected", "token_cross_entropy", "token_loss"]
