"""The tokens of a model of transformers: some of them kept, with their rows of the embedding and of the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from limbeck.errors import RequestError


def set_tokens(model: nn.Module, settings: Any, tokens: Sequence[int]) -> None:
    """Let a configuration say that a model has these of its tokens alone, numbered in this order.

    Special tokens that it names, such as `pad_token_id`, get the numbers that they have now.

    Args:
        model: A model with an embedding of tokens.
        settings: A copy of its configuration, which is changed.
        tokens: Their ids before.

    Raises:
        RequestError: The model has no tokens, or not these.
    """
    maker: Any = model
    embedding = maker.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding) or getattr(settings, "vocab_size", None) != embedding.num_embeddings:
        raise RequestError(f"{type(model).__name__} shows no vocabulary of which tokens could be kept")
    number = {old: new for new, old in enumerate(tokens)}
    wrong = [one for one in tokens if type(one) is not int or not 0 <= one < embedding.num_embeddings]
    if wrong or not tokens or len(number) < len(tokens):
        raise RequestError(
            f"tokens are different ids from 0 to {embedding.num_embeddings - 1:,} that {type(model).__name__} has, not "
            f"{wrong[0] if wrong else 'none, or one twice'}; its tokenizer has others"
        )
    settings.vocab_size = len(tokens)
    for name, value in settings.to_dict().items():
        if name.endswith("token_id") and isinstance(value, int | list):
            new = [number.get(one) for one in value] if isinstance(value, list) else number.get(value)
            setattr(settings, name, new)


def rows_of(tokens: Sequence[int], larger: Tensor, smaller: Tensor, size: int) -> Tensor:
    """What of a tensor belongs to these of `size` tokens, where the smaller tensor has them in its place."""
    for dim in range(larger.dim()):
        if larger.dim() == smaller.dim() and larger.shape[dim] == size and smaller.shape[dim] == len(tokens) != size:
            larger = larger.index_select(dim, larger.new_tensor(tokens).long())
    return larger
