"""Texts written by `generate` of transformers, whose tokens somebody else draws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.models.foreign.hugging_face import returns_records

Choose = Callable[[Tensor, int, Tensor], Tensor]


def generates(model: nn.Module) -> bool:
    """Whether a model is a causal one of transformers, which writes texts."""
    own: Any = model
    return returns_records(model) and bool(own.can_generate()) and not own.config.is_encoder_decoder


def generated_by(
    model: Any,
    ids: Tensor,
    lengths: Tensor,
    choose: Choose,
    *,
    tokens: int,
    end: int | None,
    pad: int,
) -> tuple[Tensor, Tensor]:
    """Prompts with what the model writes behind them, in rows of the same length.

    Settings in the model's folder, such as a penalty on repetition, have no say.

    Args:
        model: One that `generates`.
        ids: (B, L) prompts of one token or more, padded on the right; one that fills its row stays as it is.
        lengths: (B,) their lengths.
        choose: From logits (b, V) of some prompts, how many tokens were drawn before, and their places in the batch, to
            ids (b,).
        tokens: Tokens that are added at most; no text outgrows L.
        end: The token behind which a text is over; None for none.
        pad: The token that fills a row up.

    Returns:
        (B, L) texts, padded on the right, and their lengths.
    """
    open_ = (lengths < ids.shape[1]).nonzero().squeeze(1)
    texts, sizes = ids.clone(), lengths.clone()
    most = getattr(model.config, "max_position_embeddings", None)
    together = most is None or not len(open_) or int(lengths[open_].max()) + tokens <= most
    steps = (ids.shape[1] - lengths[open_]).clamp(max=tokens)
    # Positions that were learned end somewhere: texts with as much room are written together there.
    groups = [open_] if together else [open_[steps == some] for some in set(steps.tolist())]
    for rows in filter(len, groups):
        new = _written(model, ids[rows], lengths[rows], partial(_of_rows, choose, rows), tokens, end, pad)
        texts[rows], sizes[rows] = _beside(ids[rows], lengths[rows], new, tokens, end)
    return texts, sizes


def _of_rows(choose: Choose, rows: Tensor, logits: Tensor, number: int) -> Tensor:
    return choose(logits, number, rows)


def _written(
    model: Any, ids: Tensor, lengths: Tensor, choose: Callable[[Tensor, int], Tensor], tokens: int, end: int | None,
    pad: int,
) -> Tensor:  # fmt: skip
    """(b, t) what the model writes behind prompts."""
    import transformers

    width = int(lengths.max())
    before = width - lengths[:, None]
    place = torch.arange(width, device=ids.device)
    mask = place >= before
    left = torch.where(mask, ids.gather(1, (place - before).clamp(min=0)), pad)
    room = int((ids.shape[1] - lengths).max())
    make: Any = transformers.GenerationConfig
    settings = make(
        max_new_tokens=min(tokens, room), do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=pad,
        use_cache=True,
    )  # fmt: skip

    class Drawn(transformers.LogitsProcessor):
        """Leaves of the logits the token that is drawn."""

        def __call__(self, so_far: Tensor, scores: Tensor) -> Tensor:
            chosen = choose(scores, so_far.shape[1] - width)
            return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)

    own, model.generation_config = model.generation_config, settings
    try:
        written: Tensor = model.generate(
            input_ids=left, attention_mask=mask.long(), generation_config=settings, logits_processor=[Drawn()]
        )
    finally:
        model.generation_config = own
    return written[:, width:]


def _beside(ids: Tensor, lengths: Tensor, new: Tensor, tokens: int, end: int | None) -> tuple[Tensor, Tensor]:
    """What was written, behind each prompt; all behind an end token, and what a row does not hold, is left out."""
    place = torch.arange(ids.shape[1], device=ids.device)
    number = place - lengths[:, None]
    count = torch.full_like(lengths, new.shape[1])
    if end is not None and new.shape[1]:
        over = new == end
        count = torch.where(over.any(1), over.int().argmax(1) + 1, count)
    count = torch.minimum(count, ids.shape[1] - lengths).clamp(max=tokens)
    added = (number >= 0) & (number < count[:, None])
    texts = torch.where(added, new.to(ids.dtype).gather(1, number.clamp(0, max(new.shape[1] - 1, 0))), ids)
    return texts, lengths + count
