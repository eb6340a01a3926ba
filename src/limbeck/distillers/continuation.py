"""Texts that a language model continues: each token drawn by numbers that belong to its prompt and epoch alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.seeds import derive
from limbeck.tasks.metrics import wide
from limbeck.types import IGNORED

Choose = Callable[[Tensor, int, Tensor], Tensor]
"""From logits (b, V) of the next token of some prompts, how many were drawn before it, and the prompts' places (b,) in
the batch, to ids (b,)."""


@dataclass(frozen=True)
class Rows:
    """Texts of several lengths in one tensor.

    Attributes:
        ids: (B, L) tokens; behind a text stands padding.
        lengths: (B,) int64, how many tokens each text has.
    """

    ids: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, L) booleans: which positions are no padding."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    def last(self, x: Tensor) -> Tensor:
        """(B, ...) what a tensor (B, L, ...) holds at each text's last token."""
        return x[torch.arange(len(x), device=x.device), self.lengths - 1]


def choosing(index: Tensor, tokens: int, *, seed: int, epoch: int, temperature: float, classes: int | None) -> Choose:
    """Draws from softmax(logits / T), the k-th token of a prompt by a number that (seed, prompt, epoch, k) fixes.

    So a text does not depend on what is in the batch beside it, and a resumed training draws the same ones. Tokens are
    found where the distribution function passes that number.

    Args:
        index: (B,) positions of the prompts in their data set, on the CPU.
        tokens: How many are drawn at most for each.
        seed: The training's.
        epoch: From 0.
        temperature: T > 0.
        classes: So many tokens of the vocabulary, the first ones, are drawn; None for all.
    """
    generator = torch.Generator()
    drawn = [
        torch.rand(tokens, generator=generator.manual_seed(derive(seed, "continuation", epoch, prompt)))
        for prompt in index.tolist()
    ]
    numbers = torch.stack(drawn)

    def choose(logits: Tensor, number: int, rows: Tensor) -> Tensor:
        kind = wide(logits.device)
        levels = torch.softmax(logits[:, :classes].to(kind) / temperature, -1).cumsum(-1)
        at = numbers[rows.cpu(), number, None].to(logits.device, kind) * levels[:, -1:]
        # To the right of equal levels: a token without probability has a step of no height.
        return torch.searchsorted(levels, at, right=True).squeeze(1).clamp(max=levels.shape[1] - 1)

    return choose


def continued(
    next_of: Callable[[Rows], Tensor], prompts: Rows, choose: Choose, *, tokens: int, end: int | None
) -> Rows:
    """The prompts with what a causal language model writes behind them, by one pass over all tokens for each new one.

    Args:
        next_of: From some of the texts (b, l), padded on the right, to logits (b, V) of what follows each.
        prompts: (B, L) texts of one token or more each; one that fills its row stays as it is.
        choose: Who draws.
        tokens: Tokens that are added at most; no text outgrows L.
        end: The token behind which a text is over; None for none.
    """
    ids, at = prompts.ids.clone(), prompts.lengths.clone()
    last = (at + tokens).clamp(max=ids.shape[1])
    rows = (at < last).nonzero().squeeze(1)
    for number in range(tokens):
        if not len(rows):
            break
        place = at[rows]
        logits = next_of(Rows(ids[rows, : int(place.max())], place))
        chosen = choose(logits, number, rows).to(ids.dtype)
        ids[rows, place] = chosen
        at[rows] = place + 1
        going = place + 1 < last[rows]
        rows = rows[going if end is None else going & (chosen != end)]
    return Rows(ids, at)


def targets_of(prompts: Rows, texts: Rows, ignored: int = IGNORED) -> Tensor:
    """(B, L) the added tokens beside the positions that predict them; all other positions are ignored."""
    place = torch.arange(texts.ids.shape[1], device=texts.ids.device)
    added = (place >= prompts.lengths[:, None]) & texts.mask
    targets = torch.full_like(texts.ids, ignored)
    targets[:, :-1] = torch.where(added, texts.ids, ignored)[:, 1:]
    return targets
