"""A recipe: one complete run as data. Every key, its type and its default stand here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Taps = str | list[str]


class Strict(BaseModel):
    """Keys that are not declared are errors."""

    model_config = ConfigDict(extra="forbid")


class Open(BaseModel):
    """Keys that are not declared are options of the thing that is named, checked against its signature."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Data(Strict):
    """Which data, and how it is cut into batches."""

    name: str = "digits"
    batch_size: PositiveInt = 32
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_last: bool = False
    size: PositiveInt | None = None
    workers: Annotated[int, Field(ge=0)] = 0


class Optimizer(Open):
    """An optimizer by name; other keys are torch's options, such as momentum or weight_decay."""

    name: str = "adam"
    lr: PositiveFloat = 1e-3


class Schedule(Open):
    """A learning-rate schedule by name; other keys are its options: milestones and factor, or floor."""

    name: str = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0


class Model(Open):
    """A network by name, what it expects of its input, and the network's own options."""

    model: str
    mean: list[float] | None = None
    std: list[PositiveFloat] | None = None
    size: PositiveInt | None = None
    weights: str | None = None


class Teacher(Model):
    """A network that teaches: trained here for `epochs`, loaded from `weights`, or pretrained by its builder."""

    epochs: PositiveInt | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: PositiveInt | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0
    weight: Annotated[float, Field(ge=0)] = 1.0


class Term(Open):
    """One distillation loss; other keys are the loss's options. `ramp`: epochs until its weight is reached."""

    loss: str
    weight: float = 1.0
    ramp: Annotated[int, Field(ge=0)] = 0
    student: Taps = "logits"
    teacher: Taps = "logits"
    adapter: str | None = None
    name: str | None = None


class Distill(Strict):
    """How the student's loss is composed: by terms, or by a method's name with its customary terms."""

    method: str | None = None
    task_weight: Annotated[float, Field(ge=0)] | None = None
    terms: list[Term] = []

    @model_validator(mode="after")
    def one_way(self) -> Distill:
        """Either a method or terms."""
        if (self.method is None) == (not self.terms):
            raise ValueError("give either a method or at least one term")
        return self


class Recipe(Strict):
    """A complete run: data, teacher (or several, an ensemble), student, losses and training."""

    name: str = "recipe"
    data: Data = Data()
    teacher: Teacher | list[Teacher]
    student: Model
    distill: Distill
    epochs: PositiveInt = 10
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    accumulate: PositiveInt = 1
    clip: PositiveFloat | None = None
    keep: Literal["last", "best"] = "last"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = 0

    @property
    def teachers(self) -> list[Teacher]:
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]
