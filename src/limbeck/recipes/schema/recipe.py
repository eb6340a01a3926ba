"""A recipe: one complete run as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from limbeck.errors import RequestError, shown
from limbeck.recipes.schema.data import Data
from limbeck.recipes.schema.distillation import TAUGHT, Distill
from limbeck.recipes.schema.fields import Compile, Count, Epochs, Keep, Layout, Precision, Seed, Strict
from limbeck.recipes.schema.hugging_face import check_from_teacher, set_heads, with_teachers_model
from limbeck.recipes.schema.models import Model, Store, StoredOutputs, Student, Teacher
from limbeck.recipes.schema.own_tokens import with_own_tokens, with_reduced_tokens
from limbeck.recipes.schema.task import Task
from limbeck.recipes.schema.training import EarlyStopping, Optimizer, Quantize, Schedule


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
    teacher: Teacher | list[Teacher] | StoredOutputs | None = None
    """The teacher, or a list of teachers (an ensemble); or {store: FOLDER} for stored outputs without their teacher."""
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    """What of several teachers is averaged."""
    task: Task | None = None
    """What is learned: a task by name, or {name: NAME, …}; null: as the data set has it, else a class a sample."""
    assistants: list[Model] = Field(default=[])
    """Networks between teacher and student, for the scheme assistant."""
    student: Student
    """The network that is trained."""
    distill: Distill
    """Who teaches, and the losses."""
    epochs: Epochs = 10
    """Epochs of the student's training."""
    steps_per_epoch: Count | None = None
    """Batches that make an epoch, whose next goes on in the data where it stopped; null: all batches of the data."""
    optimizer: Optimizer = Optimizer()
    """Optimizer of the student."""
    schedule: Schedule = Schedule()
    """Learning-rate schedule of the student."""
    accumulate_steps: Count = 1
    """Batches whose gradients are added before a step."""
    max_grad_norm: PositiveFloat | None = None
    """Largest norm of the gradient; null: not clipped."""
    early_stopping: EarlyStopping | None = None
    """End the training where the validation stops improving; null: never."""
    save_every: Count | None = None
    """Write the student's weights into files of their own every so many epochs; null: only at the end."""
    keep: Keep = "last"
    """Whose weights the student gets: those of the last epoch, or of the best one on the validation."""
    validate_steps: Count | None = None
    """Validate every so many batches too, for keep: best; null: at each epoch's end alone."""
    quantize: Quantize | None = None
    """Train the last epochs for int8, and test the int8 file; null: fp32 alone."""
    precision: Precision = "auto"
    """Precision of the student's training; auto: bf16 where it helps, else fp32."""
    compile: Compile | None = "auto"
    """Mode of torch.compile; auto: on GPUs, where it pays; null: never."""
    layout: Layout = "auto"
    """Memory layout of images; auto: chosen by device and network."""
    seed: Seed = 0
    """Seed of the student's weights, data order and dropout."""

    @model_validator(mode="before")
    @classmethod
    def cut_out_of_its_teacher(cls, given: Any) -> Any:
        """A student that is cut out of its teacher has the teacher's model; a teacher of texts may have own tokens."""
        if not isinstance(given, Mapping):
            return given
        return with_own_tokens(with_reduced_tokens(with_teachers_model(given)))

    @field_validator("name")
    @classmethod
    def names_a_folder(cls, name: str) -> str:
        """Runs lie in a folder of this name."""
        return check_name(name)

    @property
    def title(self) -> str:
        """What tables and pages call it: its name, and that its figures are those of a trial."""
        limits = ", ".join(f"{name} {limit}" for name, limit in self.data.trial.items())
        return f"{self.name} (trial: {limits})" if limits else self.name

    @property
    def teachers(self) -> list[Teacher]:
        if self.teacher is None or isinstance(self.teacher, StoredOutputs):
            return []
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]

    @property
    def stored(self) -> str | None:
        """Where the outputs of a teacher lie that is not there itself."""
        return self.teacher.store if isinstance(self.teacher, StoredOutputs) else None

    @model_validator(mode="after")
    def somebody_teaches(self) -> Recipe:
        """A scheme that needs a teacher has one."""
        if self.stored is not None and self.distill.scheme != "offline":
            raise ValueError(
                f"teacher.store alone is stored outputs, for the scheme offline, and not {self.distill.scheme}; name "
                "the teacher's model"
            )
        if self.distill.scheme in TAUGHT and not self.teachers and self.stored is None:
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
        check_from_teacher(self.student, self.teachers)
        if self.task is not None:
            set_heads(self.task.name, [self.student, *self.teachers, *self.assistants])
            if self.student.output is None:
                self.student.output = self.task.output
        return self
