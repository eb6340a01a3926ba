"""What is said of a method in one place: where it comes from, and with what constants its authors run it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from limbeck.recipes.methods.places import Places

TermDict = dict[str, Any]
Terms = Callable[[Places], list[TermDict]]
"""The terms of a method for two networks, as a recipe writes them; parts of these are `OfTeacher` and `OfStudent`."""

CIFAR, IMAGENET, DENSE = "cifar", "imagenet", "dense"
CIFAR_EPOCHS, IMAGENET_EPOCHS = 240, 100
"""The lengths of the runs that the field compares methods by."""


@dataclass(frozen=True)
class OfNetwork:
    """An option of a loss that comes from a network, and is made when a training is put together.

    Attributes:
        make: From the network to the option's value.
        words: How documents call it.
    """

    make: Callable[[nn.Module], Any] = field(compare=False)
    words: str

    def __str__(self) -> str:
        return self.words


class OfTeacher(OfNetwork):
    """Such an option of the trained teacher."""


class OfStudent(OfNetwork):
    """A part of the student itself, which is trained with it."""


@dataclass(frozen=True)
class OfStage:
    """An option of a loss that an earlier stage has trained: the loss of this name."""

    loss: str

    def __str__(self) -> str:
        return f"the {self.loss} of the stage before"


@dataclass(frozen=True)
class Stage:
    """A training before the student's own, by terms alone, without the labels' loss.

    Attributes:
        name: What it is called in progress and files.
        terms: Its losses.
        epochs: How long the authors train it, beside the setting's `epochs`; its share of all epochs is the same here.
    """

    name: str
    terms: Terms
    epochs: int


@dataclass(frozen=True)
class Shipped:
    """What a method trains and ships in the student's place.

    Attributes:
        options: Those that a recipe adds to the student's, and that build the network.
        make: Makes it of the student as it starts, and of what it takes from the trained teacher.
    """

    options: Mapping[str, Any]
    make: Callable[[], nn.Module]


@dataclass(frozen=True)
class Setting:
    """One way in which a method is run.

    Attributes:
        task_weight: Factor of the labels' loss.
        terms: The distillation losses.
        stages: Trainings before the student's own.
        epochs: The length of the runs that the constants are for; ramps and stages keep their share of a shorter one.
        source: Where the constants are from, where that is not what the method's own `source` says.
        network: The network that is trained and shipped in the student's place; None for the student itself.
    """

    task_weight: float
    terms: Terms
    stages: tuple[Stage, ...] = ()
    epochs: int = CIFAR_EPOCHS
    source: str = ""
    network: Callable[[Places], Shipped] | None = None


@dataclass(frozen=True)
class Method:
    """A paper's way of distilling, by a frozen teacher.

    Attributes:
        source: The paper, and the code whose constants and connectors these are.
        settings: By name; the first one counts where none is named.
        differs: What is otherwise than there, on purpose; empty where nothing is.
    """

    source: str
    settings: Mapping[str, Setting]
    differs: str = ""

    @property
    def default(self) -> Setting:
        return next(iter(self.settings.values()))


def frozen(module: nn.Module) -> nn.Module:
    """A copy of a trained layer, as a loss takes it."""
    return copy.deepcopy(module).float().eval().requires_grad_(False)


def fixed(*terms: TermDict) -> Terms:
    """Terms that are the same for all networks."""
    return lambda places: [dict(term) for term in terms]


def logits(loss: str, weight: float, **options: Any) -> Terms:
    """One term between the logits."""
    return fixed({"loss": loss, "weight": weight, **options})


def none(places: Places) -> list[TermDict]:
    """No terms: the labels alone."""
    return []


def embeddings(loss: str, weight: float, **options: Any) -> Terms:
    """One term between the vectors that the classifiers read."""
    return lambda places: [{"loss": loss, "weight": weight, **places.embedding(), **options}]


def last(loss: str, weight: float, **options: Any) -> Terms:
    """One term between the last maps."""
    return lambda places: [{"loss": loss, "weight": weight, **places.stages()[-1], **options}]


def middle(loss: str, weight: float, **options: Any) -> Terms:
    """One term between the maps in the middle: the second of three stages or of four."""

    def terms(places: Places) -> list[TermDict]:
        pairs = places.stages()
        return [{"loss": loss, "weight": weight, **pairs[(len(pairs) - 1) // 2], **options}]

    return terms


def each(loss: str, weight: float, **options: Any) -> Terms:
    """One term for each pair of stages."""
    return lambda places: [{"loss": loss, "weight": weight, **pair, **options} for pair in places.stages()]
