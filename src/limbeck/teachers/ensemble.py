"""Several teachers that speak with one voice."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, Signal

T = TypeVar("T")


class EnsembleTeacher:
    """The weighted mean of several teachers' probabilities.

    Its logits are log Σ wᵢ softmax(zᵢ). Each member stays readable too, as the taps "NAME.logits" and "NAME.TAP",
    so that a term can listen to one of them.

    Args:
        teachers: By name, or a sequence whose names are then "0", "1", …
        weights: One ≥ 0 for each teacher, in the same form; equal by default. They are scaled to the sum 1.

    Raises:
        RequestError: No teacher; weights that are negative, all 0, or not one for each.
    """

    def __init__(
        self,
        teachers: Mapping[str, Teacher] | Sequence[Teacher],
        weights: Mapping[str, float] | Sequence[float] | None = None,
    ) -> None:
        self.teachers = _by_name(teachers)
        given = dict.fromkeys(self.teachers, 1.0) if weights is None else _by_name(weights)
        if not self.teachers:
            raise RequestError("an ensemble needs at least one teacher")
        if given.keys() != self.teachers.keys():
            raise RequestError(f"weights for {', '.join(given)}, but the teachers are {', '.join(self.teachers)}")
        total = sum(given.values())
        if min(given.values()) < 0 or total <= 0:
            raise RequestError(f"weights must be 0 or more, and not all 0: {given}")
        self.weights = {name: weight / total for name, weight in given.items()}

    @property
    def fingerprint(self) -> str:
        parts = [f"{name} {self.weights[name]} {teacher.fingerprint}" for name, teacher in self.teachers.items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def __call__(self, batch: Batch) -> Signal:
        features: dict[str, Tensor] = {}
        voices: list[Tensor] = []
        for name, teacher in self.teachers.items():
            signal = teacher(batch)
            features |= {f"{name}.{tap}": tensor for tap, tensor in signal.features.items()}
            if signal.logits is not None:
                features[f"{name}.logits"] = signal.logits
                if self.weights[name]:
                    voices.append(torch.log_softmax(signal.logits.float(), -1) + math.log(self.weights[name]))
        logits = torch.logsumexp(torch.stack(voices), 0) if voices else None
        return Signal(logits, features)


def _by_name(values: Mapping[str, T] | Sequence[T]) -> dict[str, T]:
    return dict(values) if isinstance(values, Mapping) else {str(i): value for i, value in enumerate(values)}
