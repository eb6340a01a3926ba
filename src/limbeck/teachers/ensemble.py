"""Several teachers as one: their averaged ensemble."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from limbeck.errors import RequestError, unknown
from limbeck.teachers.teacher import Teacher
from limbeck.types import Batch, TeacherOutput

T = TypeVar("T")
Mix = Literal["probabilities", "logits"]
"""What of several teachers is averaged."""


class EnsembleTeacher:
    """The weighted mean of several teachers' probabilities, or of their logits.

    Probabilities are mixed at a temperature T: the logits are T · log Σ wᵢ softmax(zᵢ/T), whose softmax at T is the
    mean of the members' own. A loss that softens by another temperature gets something else: at T 4 a mean of
    probabilities at T 1 is some 20 % off. Logits, Σ wᵢ zᵢ, are mixed alike for every temperature, and favour the
    members whose logits are large. Each member stays readable too, as the taps "NAME.logits" and "NAME.TAP", so that a
    term can read one of them.

    Args:
        teachers: By name, or a sequence whose names are then "0", "1", …
        weights: One ≥ 0 for each teacher, in the same form; equal by default. They are scaled to the sum 1.
        mix: "probabilities" or "logits".
        temperature: T > 0 of mixed probabilities: that of the losses that read them. A recipe takes its terms'.

    Raises:
        RequestError: No teacher; weights that are negative, all 0, or not one for each; another mix; T not above 0.
    """

    def __init__(
        self,
        teachers: Mapping[str, Teacher] | Sequence[Teacher],
        weights: Mapping[str, float] | Sequence[float] | None = None,
        *,
        mix: Mix = "probabilities",
        temperature: float = 1.0,
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
        if mix not in get_args(Mix):
            raise unknown("mix of an ensemble", mix, get_args(Mix))
        if not 0 < temperature < math.inf:
            raise RequestError(f"temperature must be above 0 and finite, not {temperature}")
        self.mix = mix
        self.temperature = float(temperature)
        self.weights = {name: weight / total for name, weight in given.items()}

    @property
    def fingerprint(self) -> str:
        parts = [f"{name} {self.weights[name]} {teacher.fingerprint}" for name, teacher in self.teachers.items()]
        if (self.mix, self.temperature) != ("probabilities", 1.0):
            parts.append(self.mix if self.mix == "logits" else f"{self.mix} at {self.temperature}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def notes(self) -> list[str]:
        """What should be known of how each member is run."""
        return [f"{name} {note}" for name, one in self.teachers.items() for note in getattr(one, "notes", [])]

    def __call__(self, batch: Batch) -> TeacherOutput:
        features: dict[str, Tensor] = {}
        members: list[tuple[float, Tensor]] = []
        for name, teacher in self.teachers.items():
            teacher_output = teacher(batch)
            features |= {f"{name}.{tap}": tensor for tap, tensor in teacher_output.features.items()}
            if teacher_output.output is not None:
                features[f"{name}.logits"] = teacher_output.output
                if self.weights[name]:
                    members.append((self.weights[name], teacher_output.output.float()))
        return TeacherOutput(self._mixed(members) if members else None, features)

    def _mixed(self, members: Sequence[tuple[float, Tensor]]) -> Tensor:
        if self.mix == "logits":
            return torch.stack([weight * logits for weight, logits in members]).sum(0)
        t = self.temperature
        softened = [torch.log_softmax(logits / t, -1) + math.log(weight) for weight, logits in members]
        return t * torch.logsumexp(torch.stack(softened), 0)


def _by_name(values: Mapping[str, T] | Sequence[T]) -> dict[str, T]:
    return dict(values) if isinstance(values, Mapping) else {str(i): value for i, value in enumerate(values)}
