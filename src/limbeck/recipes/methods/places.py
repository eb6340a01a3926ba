"""Where two networks can be compared: their stages, what these are before their ReLUs, their embeddings, all sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.models.preactivations import Preactivation, outputs, preactivations, probe
from limbeck.models.stages import embedding, stages
from limbeck.taps import trace

Pair = dict[str, str]
"""The taps of two places, by "student" and "teacher"."""


@dataclass(frozen=True)
class Places:
    """Where a pair of networks can be compared; found when a method first asks.

    Attributes:
        student: The small network.
        teacher: The large one.
        input_shape: One sample's shape as the student gets it.
        samples: Size of the training split.
        teacher_shape: One sample's shape as the teacher gets it; the student's where it is None.
        names: The student's and the teacher's name in a recipe, for constants that were published by pair.
    """

    student: nn.Module
    teacher: nn.Module
    input_shape: tuple[int, ...]
    samples: int
    teacher_shape: tuple[int, ...] | None = None
    names: tuple[str, str] = ("", "")

    def stages(self) -> list[Pair]:
        """Pairs of stage taps, first to last; of unequal numbers of stages the last ones pair up."""
        s, t = (stages(network, input_shape=shape) for network, shape in self._sides.values())
        count = min(len(s), len(t))
        return [{"student": a, "teacher": b} for a, b in zip(s[-count:], t[-count:], strict=True)]

    def several_stages(self) -> list[Pair]:
        """The pairs of stages, two at least.

        Raises:
            RequestError: There is only one.
        """
        pairs = self.stages()
        if len(pairs) < 2:
            raise RequestError("this method compares at least two stages, and the networks share only one")
        return pairs

    def before_relu(self) -> list[Pair]:
        """The pairs of stages, each tapped before the ReLU that it ends in, where it ends in one."""
        return [{side: one.tap for side, one in pair.items()} for pair in self._before_relu]

    def norms(self) -> list[str | None]:
        """The teacher's batch norms whose outputs go into the ReLUs that its stages end in."""
        return [pair["teacher"].norm for pair in self._before_relu]

    def embedding(self) -> Pair:
        """The taps of the vectors that the classifiers read."""
        return {"student": embedding(self.student), "teacher": embedding(self.teacher)}

    def classified_map(self, side: str = "teacher") -> tuple[str, nn.Linear]:
        """The tap of a network's map whose mean over positions its classifier reads, and that classifier.

        Raises:
            RequestError: It reads something else, or is no linear layer.
        """
        network, shape = self._sides[side]
        vector = embedding(network)
        path = vector.removesuffix(":in")
        classifier = network.get_submodule(path)
        last = self.stages()[-1][side]
        if isinstance(classifier, nn.Linear):
            tensors = outputs(network, [vector, *self._maps_from(side, last)], shape)
            read = tensors.pop(vector)
            for tap, found in tensors.items():
                if found.dim() == 4 and found.shape[1] == read.shape[-1]:
                    mean = found.mean((2, 3))
                    if mean.shape == read.shape and torch.allclose(mean, read, rtol=1e-4, atol=1e-5):
                        return tap, classifier
        raise RequestError(
            f"the {side}'s classifier {path} must be a linear layer that reads the mean over positions of the map "
            f"{last}, or of one behind it, and it is not; choose another {side}"
        )

    def _maps_from(self, side: str, stage: str) -> list[str]:
        """The taps of a network's maps from one of its stages on, in the order in which they are made."""
        network, shape = self._sides[side]
        seen = trace(network, probe(network, shape), operations=True)
        names = [tap.name for tap in seen if len(tap.shape) == 4]
        behind = names[names.index(stage) + 1 :] if stage in names else []
        return [stage, *behind]

    def into_stages(self) -> Pair:
        """The taps of what the first stages read: the output of the stems."""
        first = self.stages()[0]
        return {side: f"{stage}:in" for side, stage in first.items()}

    def shapes(self, side: str, taps: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shapes of one sample's tensors at some taps of the student or the teacher, without the batch."""
        network, shape = self._sides[side]
        return {tap: tuple(tensor.shape[1:]) for tap, tensor in outputs(network, taps, shape).items()}

    def elements(self, taps: Sequence[str]) -> list[int]:
        """How many numbers a sample's tensor has at each of some taps of the teacher."""
        shapes = self.shapes("teacher", taps)
        return [math.prod(shapes[tap]) for tap in taps]

    @cached_property
    def _sides(self) -> Mapping[str, tuple[nn.Module, tuple[int, ...]]]:
        return {
            "student": (self.student, self.input_shape),
            "teacher": (self.teacher, self.teacher_shape or self.input_shape),
        }

    @cached_property
    def _before_relu(self) -> list[dict[str, Preactivation]]:
        pairs = self.stages()
        found = {
            side: preactivations(network, [pair[side] for pair in pairs], shape)
            for side, (network, shape) in self._sides.items()
        }
        return [{"student": s, "teacher": t} for s, t in zip(found["student"], found["teacher"], strict=True)]
