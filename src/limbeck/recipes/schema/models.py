"""The keys of `student`, `teacher` and `assistants`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from limbeck.recipes.schema.fields import Count, Epochs, Open, Precision, Seed, Strict
from limbeck.recipes.schema.training import Optimizer, Schedule

Number = Annotated[int, Field(ge=0)]
"""Number of a layer or head, counted from 0."""


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
    output: str | int | None = None
    """Which of what the network returns is its output: a field's name, or a position from 0; null: its logits."""
    weights: str | None = None
    """File of weights that are loaded; null: none."""
    new_head: bool = False
    """Leave out weights of the file whose shape does not fit, such as a head of other classes; they are named."""
    freeze: list[str] = Field(default=[])
    """Parts of the network that are not trained, such as features; their norms compute as in evaluation."""


def _without_model(schema: dict[str, Any]) -> None:
    """In an editor's schema: the key `model`, or `from_teacher` in its place."""
    schema["anyOf"] = [{"required": [key]} for key in (*schema.pop("required"), "from_teacher")]


class FromTeacher(Strict):
    """A student that is cut out of its teacher, a Hugging Face model: some layers, heads or tokens, and all else.

    At least one of the keys is given.
    """

    layers: list[Number] | None = Field(default=None, min_length=1)
    """Numbers of the teacher's layers that are copied, from 0; null: all."""
    heads: Count | Annotated[list[Number], Field(min_length=1)] | None = None
    """Attention heads that each layer keeps: their numbers, from 0, or how many, those with the largest output
    projections; null: all."""
    vocabulary: Count | Literal["used"] | None = None
    """How many of the tokenizer's tokens it keeps, the most frequent ones of the training texts; used: all that occur
    there; null: all."""

    @model_validator(mode="after")
    def cuts_something(self) -> FromTeacher:
        """A student that is its teacher whole needs no such key."""
        if not self.model_dump(exclude_none=True):
            raise ValueError("from_teacher names what is kept, such as {layers: [0, 3, 6]} or {heads: 4}")
        return self


class Student(Model):
    """The network that is trained; with `from_teacher` it is of the teacher's model, and begins with its weights."""

    model_config = ConfigDict(json_schema_extra=_without_model)

    from_teacher: FromTeacher | None = None
    """Cut out of the teacher, as {layers: [0, 3, 6]}; model is the teacher's then; null: a network of its own."""
    gradient_checkpointing: bool = False
    """Compute the blocks of a transformer anew in the backward pass: less memory, more time, the same gradients."""


OF_STUDENTS = {"from_teacher", "gradient_checkpointing"}
"""Keys that a student has and no other network."""

PLACES = ("auto", "memory", "disk", "never")


class Store(Strict):
    """Whether, where and how a teacher's output is kept.

    `where`: auto decides by the teacher's cost, epochs, views and space; memory; disk, in limbeck's cache; never; or a
    folder or an fsspec address of one's own. In memory values stay fp32; on disk they are of `dtype`, and of logits the
    `top_k` likeliest alone where that is given. Without `dtype` they are float32 under auto, which changes no figure;
    under disk float16; in a custom location as they are found there, else float16. Of large vocabularies either the
    `top_k` likeliest are stored, at `bits` each, or so many `draws` from the teacher's distribution, which are right in
    expectation; `codec` (dense, topk, sampled) says by name which. `batch_size`: samples asked at once, a student's
    batch by default.
    """

    where: str = "auto"
    """auto, memory, disk, never, or a folder or fsspec address."""
    dtype: Literal["float16", "bfloat16", "float32"] | None = None
    """Type of the values stored on disk; null: float32 under auto, float16 under disk."""
    top_k: Count | None = None
    """Store only this many largest logits per sample; null: all."""
    codec: Literal["dense", "topk", "sampled"] | None = None
    """How logits are stored: all, the top_k likeliest, or some draws; null: as top_k or draws say."""
    draws: Count | None = None
    """Store this many classes per position, drawn from the teacher's distribution, in place of logits; null: all."""
    bits: Annotated[int, Field(ge=8, le=32)] | None = None
    """Bits of a stored log-probability, 8 to 16, or 32 for fp32; null: 16, and 32 where dtype is float32."""
    power: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Draw from p^power with weights; 1: from the teacher's distribution p itself."""
    batch_size: Count | None = None
    """Samples per batch while teacher outputs are computed; null: the student's."""

    @model_validator(mode="after")
    def one_codec(self) -> Store:
        """The codec by name is that which its numbers mean."""
        if self.top_k and self.draws:
            raise ValueError("give either top_k or draws: the likeliest classes, or some that are drawn")
        meant = "topk" if self.top_k else "sampled" if self.draws else "dense"
        if self.codec not in (None, meant):
            needs = {"topk": "top_k: 16", "sampled": "draws: 25", "dense": "neither top_k nor draws"}[self.codec or ""]
            raise ValueError(f"codec {self.codec} goes with {needs}")
        if meant == "dense" and (self.bits is not None or self.power != 1):
            raise ValueError("bits and power are of stored top_k or draws; dense values have a dtype")
        if self.bits is not None and 16 < self.bits < 32:
            raise ValueError("bits are 8 to 16, or 32 for fp32")
        if self.power != 1 and not self.draws:
            raise ValueError("power is of draws; the likeliest classes have none")
        return self

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
        """A sharded teacher answers all processes at once, each about its own batch; a store is written in parts."""
        if shard and given.data.get("dtype", "auto") not in ("auto", "float32"):
            raise ValueError("a sharded teacher computes in fp32; leave its dtype out")
        if shard and given.data.get("store", Store()).where not in ("auto", "memory", "never"):
            raise ValueError("a sharded teacher is not stored on disk; choose store: memory or never")
        return shard


class StoredOutputs(Strict):
    """A teacher that is not there: of it nothing but its outputs, stored for the training samples in their order."""

    store: str
    """Folder or fsspec address of the outputs, as limbeck cache --from-logprobs, or --where, writes them."""

    @field_validator("store")
    @classmethod
    def a_place(cls, store: str) -> str:
        """A place has a slash, as in a teacher's own store."""
        if "/" not in store:
            raise ValueError(f"choose a place with a slash, such as ./{store}, or name the teacher's model")
        return store
