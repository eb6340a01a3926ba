"""Losses for encoders of texts: how alike two texts are, and by how much one text fits a query better than another.

They compare similarities and scores, never vectors, so that student and teacher may differ in width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.precision import full_precision
from limbeck.losses.shapes import several_samples
from limbeck.losses.vectors import unit

Scores = Tensor | tuple[Tensor, ...]
"""(B, K) scores, or (B, D) vectors of a query, of the text that fits it, and of others: their products are scores."""


@full_precision
def in_batch_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs i ≠ j of the batch of (cos(s_i, s_j) − cos(t_i, t_j))².

    Args:
        student: (B, ...) embeddings.
        teacher: (B, ...) embeddings, of any other width.

    Returns:
        A scalar in [0, 4]; 0 in a batch of one.

    Raises:
        RequestError: The batch sizes differ.

    Transfers: how alike each two samples of the batch are.
    Use: encoders of sentences for search and clustering, beside `cosine` where both have one width; batches of 32 or
        more; no labels.
    Source: Zhang et al.: Jasper and Stella, arXiv:2412.19048, section 2 (the similarity loss).
    """
    several_samples(student, teacher)
    s, t = (unit(x.flatten(1)) for x in (student, teacher))
    apart = 1 - torch.eye(len(s), dtype=s.dtype, device=s.device)
    difference = (s @ s.T - t @ t.T) * apart
    return difference.square().sum() / max(len(s) * (len(s) - 1), 1)


@full_precision
def margin_mse(student: Scores, teacher: Scores, *, texts: int | None = None, targets: Tensor | None = None) -> Tensor:
    """MarginMSE: mean over k of ((s_+ − s_k) − (t_+ − t_k))², s the scores of a query with a text that fits and others.

    Args:
        student: (B, K) scores of K ≥ 2 texts each, that which fits first; or a tuple of K + 1 tensors (B, D), vectors
            of the query, of the text that fits and of the others, whose scores are dot products; gradients of long
            vectors in fp16 overflow. With `texts`, (B, D) vectors.
        teacher: Likewise, of the same kind or the other: a cross-encoder gives scores, a bi-encoder vectors.
        texts: K + 1 where vectors of a query, of the text that fits and of the others follow one another in the batch,
            as the data set text-triples has them, which says so itself.
        targets: (B,) with `texts`, numbers of the texts, those of a query divisible by `texts`, so that a batch may
            hold parts of such a group, which do not count; None, or below 0: the batch begins with a query.

    Returns:
        (B,) values ≥ 0; 0 where all margins agree, whatever the scores' level. With `texts` their mean over groups.

    Raises:
        RequestError: The samples or the numbers of texts differ, there is one text alone, or fewer than `texts`.

    Transfers: by how much the teacher prefers the text that fits a query.
    Use: retrieval and reranking, on triples of query, relevant and other text; no other labels.
    Source: Hofstätter et al.: Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
        Distillation, 2020, arXiv:2010.02666; recommended weight 1.
    """
    if texts is not None:
        values = margin_mse(_windows(student, texts), _windows(teacher, texts))
        counts = _begin_groups(len(values), texts, targets, values.device)
        return (values * counts).sum() / counts.sum().clamp(min=1)
    s, t = (_scores(one, student, teacher) for one in (student, teacher))
    if s.shape != t.shape or s.shape[1] < 2:
        raise _unfit(student, teacher)
    margins_s, margins_t = (one[:, :1] - one[:, 1:] for one in (s, t))
    return F.mse_loss(margins_s, margins_t, reduction="none").mean(1)


def _windows(given: Scores, texts: int) -> tuple[Tensor, ...]:
    """(B, D) vectors as `texts` of (B − texts + 1, D): what stands at a place, what follows it, and so on."""
    if not isinstance(given, Tensor) or given.dim() != 2 or not 3 <= texts <= len(given):
        shape = tuple(given.shape) if isinstance(given, Tensor) else "several tensors"
        raise RequestError(
            f"texts: {texts} are a query, a text that fits and others, 3 or more vectors (B, D) that follow one "
            f"another, not {shape}"
        )
    places = len(given) - texts + 1
    return tuple(given[at : at + places] for at in range(texts))


def _begin_groups(places: int, texts: int, targets: Tensor | None, device: torch.device) -> Tensor:
    """(places,) whether a whole group begins at each place."""
    numbers = torch.arange(places + texts - 1, device=device)
    if targets is not None:
        numbers = torch.where(targets < 0, numbers, targets)
    first = numbers[:places]
    return (first % texts == 0) & (numbers[texts - 1 :] == first + texts - 1)


def _scores(given: Scores, student: Scores, teacher: Scores) -> Tensor:
    """(B, K) scores."""
    if isinstance(given, Tensor):
        if given.dim() != 2:
            raise _unfit(student, teacher)
        return given
    query, *texts = given
    if query.dim() != 2 or any(text.shape != query.shape for text in texts):
        raise _unfit(student, teacher)
    return torch.stack([(query * text).sum(1) for text in texts], 1)


def _unfit(student: Scores, teacher: Scores) -> RequestError:
    both = (", ".join(str(tuple(x.shape)) for x in (one if isinstance(one, tuple) else (one,)))
            for one in (student, teacher))  # fmt: skip
    return RequestError(
        "student {} and teacher {} must both be scores (B, K) of two texts or more, or vectors (B, D) of a query and "
        "of as many texts".format(*both)
    )
