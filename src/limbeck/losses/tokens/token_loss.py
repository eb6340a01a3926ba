"""One loss of a language model's tokens, from hidden states and a head, without a (B·L, V) matrix."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses.precision import call_loss
from limbeck.losses.response.divergence import TAKING_DRAWS
from limbeck.losses.response.sampled import Sampled, check_drawn, value_of_draws
from limbeck.losses.response.sparse import TopK
from limbeck.losses.shapes import in_range
from limbeck.losses.tokens.head import Head, Projected
from limbeck.losses.tokens.through import OfClasses, Part, through_head
from limbeck.types import IGNORED

_OF_DRAWS = {"temperature", "teacher_temperature", "standardize", "scale"}
"""Options of a loss against draws that do not change it, or that are refused; at temperature 1 there is no scale."""
TokenTeacher = Tensor | TopK | Sampled | Projected
"""Logits (B, L, V); the likeliest of them (B, L, k), or some that were drawn; or hidden states with their head."""


def token_loss(
    loss: Callable[..., Tensor],
    hidden: Tensor,
    head: Head,
    teacher: TokenTeacher,
    *,
    targets: Tensor | None = None,
    ignore_index: int = IGNORED,
    count: int | Tensor | None = None,
    chunk: int | None = None,
    **options: Any,
) -> Tensor:
    """The mean over the tokens of a loss between a student's logits, made of its hidden states, and a teacher's.

    Value and gradients are those of the loss on all logits at once, with the average "positions"; of the logits only
    `chunk` rows are there at a time. Gradients are formed in the forward pass, in which nothing is computed twice.

    Args:
        loss: A loss that takes logits (n, V) and gives (n,) values, such as `limbeck.losses.kd`, `reverse_kl`, `jsd`,
            `skewed_kl` or `total_variation`; `targets` is given (n,) labels where it has such a parameter.
        hidden: (B, L, D), the student's hidden states as its head reads them.
        head: The student's.
        teacher: Logits (B, L, V), a `TopK` or `Sampled` (B, L, k), or `Projected` states (B, L, D') and their head.
        targets: (B, L) labels; None counts all tokens.
        ignore_index: Tokens of this label do not count.
        count: What the sum is divided by, such as the tokens of all batches that make one step; None takes the tokens
            that count.
        chunk: Tokens at a time; None chooses by the vocabulary.
        **options: Of the loss, such as temperature.

    Returns:
        One value; 0 where no token counts.

    Raises:
        RequestError: Shapes do not fit, or the loss gives no value for each token.

    >>> from limbeck import losses
    >>> hidden, head = torch.zeros(1, 2, 3), Head(torch.ones(5, 3))
    >>> token_loss(losses.kd, hidden, head, torch.zeros(1, 2, 5)).item()
    0.0
    """
    tokens = Tokens(hidden, targets, ignore_index)
    part = tokens.part(loss, teacher, options)
    return through_head([part], [1 / tokens.count(count)], tokens.hidden, head, chunk)[0]


def token_cross_entropy(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    count: int | Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The mean cross-entropy of labels (B, L) with a student's logits, made of its hidden states a few at a time.

    Args, returns and raises are those of `token_loss`.
    """
    tokens = Tokens(hidden, targets, ignore_index)
    return through_head(
        [tokens.cross_entropy(len(head.weight))], [1 / tokens.count(count)], tokens.hidden, head, chunk
    )[0]


class Tokens:
    """The tokens of a batch that count, in a row.

    Args:
        hidden: (B, L, D) states.
        targets: (B, L) labels, or None.
        ignore_index: The label of tokens that do not count.

    Attributes:
        hidden: (N, D).
        targets: (N,), or None.

    Raises:
        RequestError: Shapes do not fit.
    """

    def __init__(self, hidden: Tensor, targets: Tensor | None, ignore_index: int) -> None:
        if hidden.dim() != 3:
            raise RequestError(f"hidden states are (B, L, D), not {tuple(hidden.shape)}")
        if targets is not None and targets.shape != hidden.shape[:2]:
            raise RequestError(f"targets {tuple(targets.shape)} do not fit hidden states {tuple(hidden.shape)}")
        self.shape, self._ignored = hidden.shape[:2], ignore_index
        self._at = None if targets is None else (targets.flatten() != ignore_index).nonzero().squeeze(1)
        self.hidden = self.rows(hidden)
        self.targets = None if targets is None else self.rows(targets).long()

    def rows(self, x: Tensor) -> Tensor:
        """(N, ...) of a (B, L, ...) tensor: those of the tokens that count."""
        flat = x.flatten(0, 1)
        # Where all count, nothing is copied.
        return flat if self._at is None or len(self._at) == len(flat) else flat.index_select(0, self._at)

    def count(self, given: int | Tensor | None = None) -> float:
        """What sums are divided by."""
        return float(max(1, len(self.hidden)) if given is None else given)

    def cross_entropy(self, classes: int) -> Part:
        """(n,) cross-entropy of the labels of some tokens.

        Raises:
            RequestError: A label that none of the classes has.
        """
        labels = self.targets
        assert labels is not None
        in_range(labels, classes, ignored=self._ignored)
        return OfClasses(lambda at: labels[at, None], lambda log_probs, at: -log_probs.squeeze(-1))

    def part(self, loss: Callable[..., Tensor], teacher: TokenTeacher, options: dict[str, Any]) -> Part:
        """A loss against a teacher as `through_head` takes it."""
        parts = _tensors(teacher)
        for one in parts:
            if one.dim() != 3 or one.shape[:2] != self.shape:
                raise RequestError(f"the teacher's {tuple(one.shape)} do not lie over {tuple(self.shape)} tokens")
        rows = [self.rows(one.detach()) for one in parts]
        divergence = next((diverges for one, diverges in TAKING_DRAWS if one is loss), None)
        if isinstance(teacher, Sampled) and divergence is not None and options.keys() <= _OF_DRAWS:
            return _of_draws(rows, divergence, {"temperature": _parameters(loss)["temperature"].default, **options})
        labels = self.targets if "targets" in _parameters(loss) else None
        return partial(_values, loss, teacher, rows, labels, options)


def _of_draws(rows: list[Tensor], divergence: bool, options: dict[str, Any]) -> Part:
    weights, indices = rows
    if weights.shape != indices.shape:
        raise RequestError(
            f"a sampled teacher's weights {tuple(weights.shape)} and indices {tuple(indices.shape)} differ"
        )
    check_drawn(options["temperature"], options.get("teacher_temperature"), options.get("standardize", False))

    def values(log_probs: Tensor, at: slice) -> Tensor:
        return value_of_draws(log_probs, weights[at].to(log_probs.dtype), indices[at], divergence=divergence)

    return OfClasses(lambda at: indices[at], values)


def _tensors(teacher: TokenTeacher) -> tuple[Tensor, ...]:
    if isinstance(teacher, TopK | Sampled):
        return tuple(teacher)
    return (teacher.hidden,) if isinstance(teacher, Projected) else (teacher,)


def _values(
    loss: Callable[..., Tensor],
    teacher: TokenTeacher,
    rows: list[Tensor],
    labels: Tensor | None,
    options: dict[str, Any],
    logits: Tensor,
    at: slice,
) -> Tensor:
    """(n,) values of a loss for some tokens."""
    some = [one[at] for one in rows]
    given: Any = some[0]
    if isinstance(teacher, Projected):
        with torch.no_grad():
            given = teacher.head(given.to(teacher.head.weight.dtype))
    elif isinstance(teacher, TopK | Sampled):
        given = type(teacher)(*some)
    if labels is not None:
        options = {**options, "targets": labels[at]}
    values = call_loss(loss, logits, given, **options)
    if not isinstance(values, Tensor) or values.shape != logits.shape[:1]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        name = getattr(loss, "__name__", type(loss).__name__)
        raise RequestError(f"{name} gives {shape} for {len(logits)} tokens: in chunks a loss gives one value a token")
    return values


def _parameters(loss: Callable[..., Tensor]) -> Mapping[str, Any]:
    return inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters
