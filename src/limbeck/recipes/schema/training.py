"""The keys of `optimizer`, `schedule`, `early_stopping` and `quantize`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from limbeck.recipes.schema.fields import Count, Open, Strict


class Group(Open):
    """Parameters with options of their own, such as lr or weight_decay."""

    match: str
    """Pattern of the parameters' names in the network, such as features.*"""


class Optimizer(Open):
    """An optimizer by name; other keys are torch's options, such as momentum or weight_decay."""

    name: str = "adam"
    """Name of the optimizer."""
    lr: PositiveFloat = 1e-3
    """Learning rate."""
    no_decay: list[Literal["norms", "biases"]] = Field(default=[])
    """Which parameters get no weight decay: norms, biases, or both."""
    groups: list[Group] = Field(default=[])
    """Parameters with options of their own, by patterns of their names; the first that fits counts."""


class Schedule(Open):
    """A learning-rate schedule by name; other keys are its options: milestones and factor, or floor."""

    name: str = "constant"
    """Name of the learning-rate schedule."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs of linear warm-up of the learning rate."""


class EarlyStopping(Strict):
    """When a training ends before its last epoch, by what the validation shows."""

    patience: Count = 5
    """Epochs without an improvement after which the training ends."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Least difference from the best epoch that counts as an improvement."""


class Quantize(Strict):
    """The student in int8: the last of its epochs with fake quantisation, and a file that onnxruntime runs.

    These are a part of the recipe's epochs, so that students with and without them have an equal budget.
    """

    epochs: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Of the recipe's epochs so many with fake quantisation; 0: quantised without training; null: a tenth of them."""
    teacher: bool = True
    """In these epochs the teacher teaches too, or without one the student itself in fp32; false: labels alone."""
    bits: Literal["auto", 7, 8] = "auto"
    """Bits of a weight; auto: 8, and 7 on x86 processors without VNNI, where products of 8 bits can overflow."""
    samples: Count = 512
    """Training samples that set the ranges of activations before these epochs."""
    lr: PositiveFloat | None = None
    """Learning rate of these epochs, from which it falls by a cosine; null: a tenth of the optimizer's."""
