"""A teacher's answer of only its k likeliest classes: what a stored teacher of a language model is."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.losses.response.some_classes import with_rest


class TopK(NamedTuple):
    """The k likeliest classes of each of a teacher's distributions, at temperature 1.

    Classes lie where the logits have theirs: (B, k), (B, L, k) or (B, k, H, W).

    Attributes:
        log_probs: Log-probabilities under the full softmax, so that they sum to less than one.
        indices: The classes that they belong to, each once in a row.

    >>> import torch
    >>> TopK.of(torch.tensor([[3.0, 0.0, 1.0, 0.0]]), k=2).indices
    tensor([[0, 2]])
    """

    log_probs: Tensor
    indices: Tensor

    @classmethod
    def of(cls, logits: Tensor, k: int) -> TopK:
        """The k likeliest classes of (B, C), (B, L, C) or (B, C, H, W) logits."""
        axis = 1 if logits.dim() == 4 else -1
        if not 1 <= k <= logits.shape[axis]:
            raise RequestError(f"k = {k} is not between 1 and the classes of the logits {tuple(logits.shape)}")
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return cls(*wide.log_softmax(axis).topk(k, axis))


def check_sparse(student: Tensor, teacher: tuple[Tensor, Tensor]) -> None:
    """Raise RequestError unless a sparse teacher's values and indices lie over the student's positions."""
    axis = 1 if student.dim() == 4 else -1
    values, indices = teacher
    s, t = list(student.shape), list(values.shape)
    fits = student.dim() in (2, 3, 4) and len(s) == len(t) and indices.shape == values.shape
    if fits:
        most = s.pop(axis)
        # Classes are drawn with repetition, and may be more than there are; the likeliest stand there once.
        fits = (1 <= t.pop(axis) <= most or not isinstance(teacher, TopK)) and s == t
    if not fits:
        raise RequestError(
            f"student {tuple(student.shape)} and teacher's top-k {tuple(values.shape)} with "
            f"indices {tuple(indices.shape)} must agree in all but the classes, and k be at most C"
        )


def takes(loss: Callable[..., Any], kind: type) -> bool:
    """Whether a loss is declared to take a teacher of this kind, as in `teacher: Tensor | TopK`."""
    try:
        parameter = inspect.signature(loss).parameters.get("teacher")
    except ValueError:  # torch's own functions in C++ do not tell theirs
        return False
    return parameter is not None and kind.__name__ in str(parameter.annotation)


def spread(log_probs: Tensor, indices: Tensor, classes: int, temperature: float) -> Tensor:
    """Teacher's (..., C) log-probabilities at T, the unknown mass spread evenly over the others."""
    top, each, log_z = _softened(log_probs, classes, temperature)
    full = (each - log_z).expand(*indices.shape[:-1], classes)
    return full.scatter(-1, indices, top - log_z)


def bucket(log_probs: Tensor, classes: int, temperature: float) -> Tensor:
    """Teacher's (..., k + 1) log-probabilities at T, the last of all classes not named; (..., k) if k = C."""
    top, each, log_z = _softened(log_probs, classes, temperature)
    others = classes - log_probs.shape[-1]
    if others == 0:
        return top - log_z
    return torch.cat([top, each + math.log(others)], -1) - log_z


def gather_bucket(logits: Tensor, indices: Tensor) -> Tensor:
    """Student's log-probabilities of the named classes and, last, of all others together."""
    every = indices.shape[-1] == logits.shape[-1]
    found = logits.gather(-1, indices) if every else with_rest(logits, indices)
    return found.log_softmax(-1)


def _softened(log_probs: Tensor, classes: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """(log p_i / T of the named, the same of each other class, log of their sum over all classes)."""
    top, others = log_probs / temperature, classes - log_probs.shape[-1]
    if others == 0:
        return top, top[..., :1], top.logsumexp(-1, keepdim=True)
    named = log_probs.logsumexp(-1, keepdim=True)
    # Stored values are rounded, so that the named classes may seem to hold all mass or more.
    mass = -torch.expm1(named.clamp(max=-torch.finfo(named.dtype).tiny))
    each = (mass.clamp(min=torch.finfo(mass.dtype).tiny).log() - math.log(others)) / temperature
    log_z = torch.cat([top, each + math.log(others)], -1).logsumexp(-1, keepdim=True)
    return top, each, log_z
