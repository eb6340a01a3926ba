"""Padding of texts: in terms on hidden tensors no position counts that holds no token, in no mean and no gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest

from torch import Tensor, nn

from limbeck.taps import LOGITS

Tapped = Tensor | tuple[Tensor, ...]


def without_padding(
    tapped: Tapped,
    names: str | tuple[str, ...],
    mask: Tensor | None,
    adapters: Iterable[nn.Module],
    adapted: Callable[[nn.Module, Tensor], Tensor],
) -> Tapped:
    """Tensors as a loss gets them: adapted, and zero where hidden ones hold padding.

    Zeros leave sums, lengths and products over all positions as those over tokens are; means need to know how many
    tokens there are (`tokens_in`). Padding in outputs is left to the targets, which do not count there.

    Args:
        tapped: One tensor, or several. What a sparse teacher gives is one, in a tuple of its own.
        names: Their taps: one name, or several.
        mask: (B, L) which positions of the batch are no padding; None for a batch without padding.
        adapters: One for each tensor, or none.
        adapted: Runs an adapter.
    """
    given = list(adapters)
    if not given and mask is None:
        return tapped
    found = []
    several = (tapped, names) if isinstance(names, tuple) else ((tapped,), (names,))
    for x, name, adapt in zip_longest(*several, given):
        hidden = None if name == LOGITS else mask
        if adapt is not None:
            x = adapted(adapt, _with_means(x, tokens_in(hidden, x)))
        tokens = tokens_in(hidden, x)
        found.append(x if tokens is None else x.where(tokens, 0))
    return tuple(found) if isinstance(names, tuple) else found[0]


def tokens_in(mask: Tensor | None, x: Tapped) -> Tensor | None:
    """Where a hidden tensor holds tokens, as booleans that broadcast over it; None of one without the mask's positions.

    Args:
        mask: (B, L) which positions of a batch are no padding; None for a batch without padding.
        x: Hidden states (B, L, D), or by head (B, H, L, D), or attention maps (B, H, L, L) from tokens to tokens; of
            several tensors none is told.
    """
    if mask is None or not isinstance(x, Tensor) or x.dim() < 3 or len(x) != len(mask):
        return None
    length = mask.shape[1]
    if x.dim() == 4 and x.shape[2:] == (length, length):
        return mask[:, None, :, None] & mask[:, None, None, :]
    if x.dim() == 4 and x.shape[2] == length:
        return mask[:, None, :, None]
    return mask[:, :, None] if x.dim() == 3 and x.shape[1] == length else None


def _with_means(x: Tensor, tokens: Tensor | None) -> Tensor:
    """x with the mean of a sample's tokens in the place of its padding, for adapters that average over positions."""
    if tokens is None:
        return x
    positions = tuple(axis for axis in range(1, x.dim()) if tokens.shape[axis] > 1)
    count = tokens.sum(positions, keepdim=True).clamp(min=1)
    return x.where(tokens, x.where(tokens, 0).sum(positions, keepdim=True) / count)
