"""Losses of one distribution against another, over classifiers, language models and segmentation alike.

Logits are (B, C), (B, L, C) or (B, C, H, W). A `Distance` sees (b, p, C) views of them, so that neither
layout is copied, and gives (b, p) values; the mean over a sample's positions is the sample's value, or its part of
the mean over all positions of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.errors import RequestError, unknown
from limbeck.losses.response.sparse import check_sparse
from limbeck.losses.shapes import agree

CLASSES = "teacher and student must know the same classes"

Average = Literal["samples", "positions"]
"""What has one weight in a batch: each sample, or each position."""
Distance = Callable[..., Tensor]
"""(student (b, p, C), *teacher parts (b, p, C or k)) → (b, p), and the same without p."""


def over_positions(
    distance: Distance,
    student: Tensor,
    teacher: Tensor | tuple[Tensor, Tensor],
    *,
    targets: Tensor | None = None,
    ignore_index: int | None = None,
    chunk: int | None = None,
    average: Average = "samples",
) -> Tensor:
    """Mean of `distance` over each sample's positions that are kept: (B,), 0 where none is kept.

    A sparse teacher, a `TopK` or a `Sampled`, gives its two tensors. With the average "positions" these are values
    whose mean over the samples is that over all kept positions.
    """
    if isinstance(teacher, Tensor):
        agree(student, teacher, (2, 3, 4), *range(student.dim()), remedy=CLASSES)
    else:
        check_sparse(student, teacher)
    parts = (teacher,) if isinstance(teacher, Tensor) else teacher
    if student.dim() == 2 and ignore_index is None and chunk is None and average == "samples":
        return distance(student, *parts)
    rows = [_positions(x) for x in (student, *parts)]
    if chunk is None:
        values = distance(*rows)
    elif chunk < 1:
        raise RequestError(f"chunk is a number of rows, 1 or more, not {chunk}")
    else:
        values = _InChunks.apply(distance, chunk, *rows)
    return averaged(values, student, targets=targets, ignore_index=ignore_index, average=average)


def averaged(
    values: Tensor, student: Tensor, *, targets: Tensor | None, ignore_index: int | None, average: Average
) -> Tensor:
    """(B,) values of the samples from (B, P) of their positions; see `over_positions`."""
    if average not in get_args(Average):
        raise unknown("average", average, get_args(Average))
    if ignore_index is None:
        return values.sum(1) / max(values.shape[1], 1)
    keep = _kept(student, targets, ignore_index)
    sums = values.where(keep, 0.0).sum(1)
    if average == "positions":
        return sums * (len(keep) / keep.sum().clamp(min=1))
    return sums / keep.sum(1).clamp(min=1)


def _positions(x: Tensor) -> Tensor:
    """(B, P, C) view, P = 1 for (B, C)."""
    if x.dim() == 4:
        return x.flatten(2).transpose(1, 2)
    return x.unsqueeze(1) if x.dim() == 2 else x


def _kept(student: Tensor, targets: Tensor | None, ignore_index: int) -> Tensor:
    """(B, P) mask of the positions whose target is not to be ignored."""
    wanted = student.shape[:1] + student.shape[2:] if student.dim() == 4 else student.shape[:-1]
    if targets is None or targets.shape != wanted:
        have = "missing" if targets is None else f"{tuple(targets.shape)}"
        raise RequestError(
            f"ignore_index needs targets of shape {tuple(wanted)} for the logits {tuple(student.shape)}; "
            f"they are {have}"
        )
    return (targets != ignore_index).reshape(len(student), -1)


class _InChunks(torch.autograd.Function):
    """`distance` on a few rows at a time; the backward pass computes each chunk again.

    Only the gradient itself, in the dtype of the logits, is ever as large as they are.
    """

    @staticmethod
    def forward(ctx: Any, distance: Distance, chunk: int, *rows: Tensor) -> Tensor:
        ctx.distance, ctx.chunk = distance, chunk
        ctx.save_for_backward(*rows)
        pieces = [(at, distance(*(r[at] for r in rows))) for at in _pieces(rows[0], chunk)]
        values = pieces[0][1].new_empty(rows[0].shape[:2]) if pieces else rows[0].new_zeros(rows[0].shape[:2])
        for at, value in pieces:
            values[at] = value
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows: tuple[Tensor, ...] = ctx.saved_tensors
        grads = [torch.empty_like(r) if n else None for r, n in zip(rows, ctx.needs_input_grad[2:], strict=True)]
        for at in _pieces(rows[0], ctx.chunk):
            leaves = [r[at].detach().requires_grad_(g is not None) for r, g in zip(rows, grads, strict=True)]
            with torch.enable_grad():
                value = ctx.distance(*leaves)
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(value, wanted, grad[at]))
            for g in grads:
                if g is not None:
                    g[at] = next(found)
        return (None, None, *grads)


def _pieces(rows: Tensor, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Slices of (B, P) with at most `chunk` rows each: whole samples where they fit, else parts of one."""
    samples, positions = rows.shape[:2]
    if positions == 0:
        return
    many, part = max(chunk // positions, 1), min(chunk, positions)
    for b in range(0, samples, many):
        for p in range(0, positions, part):
            yield slice(b, b + many), slice(p, p + part)
