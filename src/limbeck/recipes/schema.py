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

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

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
    """Data set: a name of `limbeck list data`, a folder of images, or package.module:function."""
    batch_size: Count = 32
    """Samples per training step."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training set held out for validation, 0 to 1."""
    drop_last: bool = False
    """Leave out a last batch that is smaller than the others."""
    size: Count | None = None
    """Height and width in pixels that the images of a folder are resized to; null: as they are."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that load data; 0: the main process."""
    augment: list[str | dict[str, Any]] = []
    """Augmentations in order, each a name or {name: options}."""
    views: Count | None = None
    """Number of different augmented views; null: a new one each epoch."""
    view_seed: Seed = 0
    """Seed of the views."""


class Optimizer(Open):
    """An optimizer by name; other keys are torch's options, such as momentum or weight_decay."""

    name: str = "adam"
    """Name of the optimizer."""
    lr: PositiveFloat = 1e-3
    """Learning rate."""


class Schedule(Open):
    """A learning-rate schedule by name; other keys are its options: milestones and factor, or floor."""

    name: str = "constant"
    """Name of the learning-rate schedule."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs of linear warm-up of the learning rate."""


class Model(Open):
    """A network by name, what it expects of its input, and the network's own options.

    `inputs` names, for each parameter of the network's forward, the data's input that it gets.
    """

    model: str
    """Network: a name of `limbeck list models`, or package.module:function."""
    inputs: dict[str, str] | list[str] | None = None
    """For each parameter of forward, the data's input that it gets; null: in order."""
    mean: list[float] | None = None
    """Mean per channel that is subtracted from the inputs, on the scale 0 to 1; null: none."""
    std: list[PositiveFloat] | None = None
    """Standard deviation per channel that the inputs are divided by; null: none."""
    size: Count | None = None
    """Height and width in pixels that inputs are resized to; null: as they are."""
    weights: str | None = None
    """File of weights that are loaded; null: none."""


PLACES = ("auto", "memory", "disk", "never")


class Store(Strict):
    """Whether, where and how a teacher's output is kept.

    `where`: auto decides by the teacher's cost, epochs, views and space; memory; disk, in limbeck's cache; never; or a
    folder or an fsspec address of one's own. In memory values stay fp32; on disk they are of `dtype`, and of logits the
    `top_k` likeliest alone where that is given. Without `dtype` they are float32 under auto, which changes no figure;
    under disk float16; in a place of one's own as they are found there, else float16. `batch_size`: samples asked at
    once, a student's batch by default.
    """

    where: str = "auto"
    """auto, memory, disk, never, or a folder or fsspec address."""
    dtype: Literal["float16", "bfloat16", "float32"] | None = None
    """Type of the values stored on disk; null: float32 under auto, float16 under disk."""
    top_k: Count | None = None
    """Store only this many largest logits per sample; null: all."""
    batch_size: Count | None = None
    """Samples per batch while teacher outputs are computed; null: the student's."""

    @field_validator("where")
    @classmethod
    def a_choice_or_a_place(cls, where: str) -> str:
        """A word without a slash is one of the choices: a mistyped one is no folder."""
        if where not in PLACES and "/" not in where:
            raise ValueError(f"choose {', '.join(PLACES)}, or a place with a slash, such as ./outputs")
        return where


class Teacher(Model):
    """A network that teaches: trained here for `epochs`, loaded from `weights`, or pretrained by its builder.

    `augment` is for its own training; the student's where it is left out. `shard`: of several devices each holds a part
    of its weights, in fp32, instead of all of them.
    """

    epochs: Epochs | None = None
    """Epochs of the teacher's own training; null: it is not trained here."""
    optimizer: Optimizer = Optimizer()
    """Optimizer of the teacher's own training."""
    schedule: Schedule = Schedule()
    """Learning-rate schedule of the teacher's own training."""
    batch_size: Count | None = None
    """Samples per step of the teacher's own training; null: the student's."""
    augment: list[str | dict[str, Any]] | None = None
    """Augmentations of the teacher's own training; null: the student's."""
    precision: Precision = "auto"
    """Precision of the teacher's own training."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type that the teacher computes its outputs in."""
    seed: Seed = 0
    """Seed of the teacher's own training."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this teacher among several."""
    store: Store = Store()
    """Whether, where and how teacher outputs are stored."""
    shard: bool = False
    """On several devices, each holds a part of the teacher's weights."""

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
    """Loss: a name of `limbeck list losses`, or package.module:function."""
    weight: FiniteFloat = 1.0
    """Weight of the loss in the sum."""
    ramp: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Epochs until the weight is reached; 0: from the start."""
    ramp_shape: Literal["linear", "exponential"] = "linear"
    """How the weight grows during the ramp."""
    student: Taps = "logits"
    """Where in the student the loss reads: a tap, or a list of taps."""
    teacher: Taps = "logits"
    """Where in the teacher the loss reads: a tap, or a list of taps."""
    adapter: str | None = None
    """Layer that brings the student's tensor to the teacher's shape; null: none."""
    name: str | None = None
    """Name of the term in logs; null: the loss's."""


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
    """Who teaches: a teacher, earlier copies, other students, the student itself, or none."""
    options: dict[str, Any] = {}
    """Options of the scheme."""
    method: str | None = None
    """NAME, NAME:SETTING, or {name: NAME, setting: SETTING}."""
    task_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the loss on the labels; null: the method's, else the scheme's."""
    terms: list[Term] = []
    """Distillation losses that are added up; left out where a method is named."""

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
    """Name of the recipe; run folders are named after it."""
    data: Data = Data()
    """Data, batches and augmentation."""
    teacher: Teacher | list[Teacher] | None = None
    """The teacher, or a list of teachers (an ensemble)."""
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    """What of several teachers is averaged."""
    assistants: list[Model] = []
    """Networks between teacher and student, for the scheme assistant."""
    student: Model
    """The network that is trained."""
    distill: Distill
    """Who teaches, and the losses."""
    epochs: Epochs = 10
    """Epochs of the student's training."""
    optimizer: Optimizer = Optimizer()
    """Optimizer of the student."""
    schedule: Schedule = Schedule()
    """Learning-rate schedule of the student."""
    accumulate_steps: Count = 1
    """Batches whose gradients are added before a step."""
    max_grad_norm: PositiveFloat | None = None
    """Largest norm of the gradient; null: not clipped."""
    restore_best: bool = False
    """Give the weights of the best epoch on validation, instead of those of the last epoch."""
    precision: Precision = "auto"
    """Precision of the student's training; auto: bf16 where it helps, else fp32."""
    compile: Compile | None = "auto"
    """Mode of torch.compile; auto: on GPUs, where it pays; null: never."""
    layout: Layout = "auto"
    """Memory layout of images; auto: chosen by device and network."""
    seed: Seed = 0
    """Seed of the student's weights, data order and dropout."""

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
