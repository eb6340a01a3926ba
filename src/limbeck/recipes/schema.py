"""A recipe: one complete run as data. Every key, its type and its default stand here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

Taps = str | list[str]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
"""auto: bf16 autocast where the network and the device gain from it, else fp32."""
Compile = Literal["auto", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""auto: on GPUs, where a trial shows that it pays within the run; the others are torch.compile's modes."""

Layout = Literal["auto", "channels_last", "contiguous"]
"""auto: channels-last on CPUs and NVIDIA GPUs, where the student's gradients are right in it."""


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
    """Which data, how it is cut into batches, and how the students see it.

    `augment` lists augmentations, each a name or {name: options}. Epoch e sees view e mod `views`, a new one each epoch
    without `views`; a view is a function of (`view_seed`, view, sample), the same for all students of a comparison.
    """

    name: str = "digits"
    batch_size: PositiveInt = 32
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_last: bool = False
    size: PositiveInt | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    augment: list[str | dict[str, Any]] = []
    views: PositiveInt | None = None
    view_seed: int = 0


class Optimizer(Open):
    """An optimizer by name; other keys are torch's options, such as momentum or weight_decay."""

    name: str = "adam"
    lr: PositiveFloat = 1e-3


class Schedule(Open):
    """A learning-rate schedule by name; other keys are its options: milestones and factor, or floor."""

    name: str = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0


class Model(Open):
    """A network by name, what it expects of its input, and the network's own options.

    `inputs` names, for each parameter of the network's forward, the data's input that it gets.
    """

    model: str
    inputs: dict[str, str] | list[str] | None = None
    mean: list[float] | None = None
    std: list[PositiveFloat] | None = None
    size: PositiveInt | None = None
    weights: str | None = None


PLACES = ("auto", "memory", "disk", "never")


class Store(Strict):
    """Whether, where and how a teacher's signal is kept.

    `where`: auto decides by the teacher's cost, epochs, views and space; memory; disk, in limbeck's cache; never; or a
    folder or an fsspec address of one's own. In memory values stay fp32; on disk they are of `dtype`, and of logits the
    `top_k` likeliest alone where that is given. Without `dtype` they are float32 under auto, which changes no figure;
    under disk float16; in a place of one's own as they are found there, else float16. `batch_size`: samples asked at
    once, a student's batch by default.
    """

    where: str = "auto"
    dtype: Literal["float16", "bfloat16", "float32"] | None = None
    top_k: PositiveInt | None = None
    batch_size: PositiveInt | None = None

    @field_validator("where")
    @classmethod
    def a_choice_or_a_place(cls, where: str) -> str:
        """A word without a slash is one of the choices: a mistyped one is no folder."""
        if where not in PLACES and "/" not in where:
            raise ValueError(f"choose {', '.join(PLACES)}, or a place with a slash, such as ./signals")
        return where


class Teacher(Model):
    """A network that teaches: trained here for `epochs`, loaded from `weights`, or pretrained by its builder.

    `augment` is for its own training; the student's where it is left out. `shard`: of several devices each holds a part
    of its weights, in fp32, instead of all of them.
    """

    epochs: PositiveInt | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: PositiveInt | None = None
    augment: list[str | dict[str, Any]] | None = None
    precision: Precision = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0
    weight: Annotated[float, Field(ge=0)] = 1.0
    store: Store = Store()
    shard: bool = False

    @field_validator("store", mode="before")
    @classmethod
    def place_alone(cls, value: Any) -> Any:
        """`store: auto` is short for `store: {where: auto}`."""
        return {"where": value} if isinstance(value, str) else value

    @field_validator("shard")
    @classmethod
    def shards_answer_together(cls, shard: bool, given: ValidationInfo) -> bool:
        """A teacher in shards answers all processes at once, each about its own batch; a store is written in parts."""
        if shard and given.data.get("dtype", "auto") not in ("auto", "float32"):
            raise ValueError("a teacher in shards computes in fp32; leave its dtype out")
        if shard and given.data.get("store", Store()).where not in ("auto", "memory", "never"):
            raise ValueError("a teacher in shards is not stored on disk; choose store: memory or never")
        return shard


class Term(Open):
    """One distillation loss; other keys are the loss's options. `ramp`: epochs until its weight is reached."""

    loss: str
    weight: FiniteFloat = 1.0
    ramp: Annotated[int, Field(ge=0)] = 0
    student: Taps = "logits"
    teacher: Taps = "logits"
    adapter: str | None = None
    name: str | None = None


Scheme = Literal[
    "offline", "two-stage", "assistant", "born-again", "self", "mutual", "mean-teacher", "class-wise", "teacher-free"
]
TAUGHT = ("offline", "two-stage", "assistant")
"""The schemes that need a teacher."""
WITH_TERMS = (*TAUGHT, "born-again", "mean-teacher", "teacher-free")
"""The schemes whose loss is made of terms."""


class Distill(Strict):
    """Who teaches, and how the loss is composed: by terms, or by a method's name with its customary terms."""

    scheme: Scheme = "offline"
    options: dict[str, Any] = {}
    method: str | None = None
    task_weight: Annotated[float, Field(ge=0)] | None = None
    terms: list[Term] = []

    @model_validator(mode="after")
    def one_way(self) -> Distill:
        """A method or terms, and terms only where the scheme's loss is made of them."""
        if self.method is not None and self.terms:
            raise ValueError("give either a method or terms, not both; {method: kd} as a whole replaces the terms")
        if self.method is None and self.scheme in WITH_TERMS and not self.terms:
            raise ValueError(f"give a method or at least one term for the scheme {self.scheme}")
        if self.scheme not in WITH_TERMS and (self.terms or self.method):
            raise ValueError(f"the scheme {self.scheme} has a loss of its own, and takes neither terms nor a method")
        return self


class Recipe(Strict):
    """A complete run: data, teacher (or several, an ensemble), student, losses and training."""

    name: str = "recipe"
    data: Data = Data()
    teacher: Teacher | list[Teacher] | None = None
    assistants: list[Model] = []
    student: Model
    distill: Distill
    epochs: PositiveInt = 10
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    accumulate: PositiveInt = 1
    clip: PositiveFloat | None = None
    keep: Literal["last", "best"] = "last"
    precision: Precision = "auto"
    compile: Compile | None = "auto"
    layout: Layout = "auto"
    seed: int = 0

    @property
    def teachers(self) -> list[Teacher]:
        if self.teacher is None:
            return []
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]

    @model_validator(mode="after")
    def somebody_teaches(self) -> Recipe:
        """A scheme that needs a teacher has one."""
        if self.distill.scheme in TAUGHT and not self.teachers:
            raise ValueError(f"the key 'teacher' is missing, and the scheme {self.distill.scheme} needs one")
        if self.distill.scheme == "assistant" and not self.assistants:
            raise ValueError("the key 'assistants' is missing, and the scheme assistant needs at least one")
        if any(one.store != Store() for one in self.teachers[1:]):
            raise ValueError("what several teachers say is kept together: give `store` to the first of them")
        return self
