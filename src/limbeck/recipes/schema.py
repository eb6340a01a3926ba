"""A recipe: one complete run as data. Every key, its type and its default stand here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from limbeck.errors import RequestError, shown

Taps = str | list[str]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
"""auto: bf16 autocast where the network and the device gain from it, else fp32."""
Compile = Literal["auto", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""auto: on GPUs, where a trial shows that it pays within the run; the others are torch.compile's modes."""

Layout = Literal["auto", "channels_last", "contiguous"]
"""auto: channels-last on CPUs and NVIDIA GPUs, where the student's gradients are right in it."""


Count = Annotated[int, Field(gt=0, lt=2**31)]
Epochs = Annotated[int, Field(gt=0, le=1_000_000)]
"""Each epoch leaves a record in every later checkpoint: a million are some hundred megabytes."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
"""What torch's generators take."""


class Checked(BaseModel):
    """Numbers are finite, and true and false are none."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes, no, on and off as truth values, and Python takes those for 1 and 0."""
        field = cls.model_fields.get(info.field_name or "")
        if (
            isinstance(value, bool)
            and field is not None
            and bool not in (field.annotation, *get_args(field.annotation))
        ):
            raise ValueError("true and false (yes and no, on and off, too) are no value of this key")
        return value


class Strict(Checked):
    """Keys that are not declared are errors."""

    model_config = ConfigDict(extra="forbid")


class Open(Checked):
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
    batch_size: Count = 32
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_last: bool = False
    size: Count | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    augment: list[str | dict[str, Any]] = []
    views: Count | None = None
    view_seed: Seed = 0


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
    size: Count | None = None
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
    top_k: Count | None = None
    batch_size: Count | None = None

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

    epochs: Epochs | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    batch_size: Count | None = None
    augment: list[str | dict[str, Any]] | None = None
    precision: Precision = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Seed = 0
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
    """One distillation loss; other keys are the loss's options.

    `ramp`: epochs until its weight is reached, linearly or exponentially (`limbeck.distillers.ramp`).
    """

    loss: str
    weight: FiniteFloat = 1.0
    ramp: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    ramp_shape: Literal["linear", "exponential"] = "linear"
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
    """NAME, NAME:SETTING, or {name: NAME, setting: SETTING}."""
    task_weight: Annotated[float, Field(ge=0)] | None = None
    terms: list[Term] = []

    @field_validator("method", mode="before")
    @classmethod
    def setting_behind_the_name(cls, value: Any) -> Any:
        """`method: {name: dkd, setting: imagenet}` is `method: dkd:imagenet`."""
        if not isinstance(value, dict):
            return value
        name, setting = value.get("name"), value.get("setting")
        if set(value) - {"name", "setting"} or not isinstance(name, str) or not isinstance(setting, str | None):
            raise ValueError("a method is a name, or {name: NAME, setting: SETTING}")
        return name if setting is None else f"{name}:{setting}"

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


def check_name(name: str) -> str:
    """The name itself, where a folder can have it.

    Raises:
        RequestError: It could lead elsewhere, or no file system takes it.
    """
    if not name.isprintable() or not 0 < len(name) <= 100 or {"/", "\\"} & set(name) or not name.strip(". "):
        raise RequestError(
            f"a folder is named after {shown(name)}: give 1 to 100 printable characters, no / or \\, not dots alone"
        )
    return name


class Recipe(Strict):
    """A complete run: data, teacher (or several, an ensemble), student, losses and training.

    `ensemble`: what of several teachers is averaged: their probabilities at the temperature of the first term that
    reads them, or their logits.
    """

    name: str = "recipe"
    data: Data = Data()
    teacher: Teacher | list[Teacher] | None = None
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    assistants: list[Model] = []
    student: Model
    distill: Distill
    epochs: Epochs = 10
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    accumulate: Count = 1
    clip: PositiveFloat | None = None
    keep: Literal["last", "best"] = "last"
    precision: Precision = "auto"
    compile: Compile | None = "auto"
    layout: Layout = "auto"
    seed: Seed = 0

    @field_validator("name")
    @classmethod
    def names_a_folder(cls, name: str) -> str:
        """Runs lie in a folder of this name."""
        return check_name(name)

    @property
    def teachers(self) -> list[Teacher]:
        if self.teacher is None:
            return []
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]

    @model_validator(mode="after")
    def somebody_teaches(self) -> Recipe:
        """A scheme that needs a teacher has one."""
        if self.distill.scheme in TAUGHT and not self.teachers:
            raise ValueError(
                f"the key 'teacher' is missing, and the scheme {self.distill.scheme} needs one; write teacher: "
                "{model: NAME, epochs: N}, or choose a scheme without a teacher, such as scheme: born-again"
            )
        if self.distill.scheme == "assistant" and not self.assistants:
            raise ValueError(
                "the key 'assistants' is missing, and the scheme assistant needs at least one; write "
                "assistants: [{model: NAME}]"
            )
        if any(one.store != Store() for one in self.teachers[1:]):
            raise ValueError("what several teachers say is kept together: give `store` to the first of them")
        return self
