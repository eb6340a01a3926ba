"""The keys of `distill` and its terms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from limbeck.recipes.schema.fields import Open, Strict, Taps


class Term(Open):
    """One distillation loss; other keys are the loss's options.

    `ramp`: epochs until its weight is reached, linearly or exponentially (`limbeck.distillers.ramp`).
    """

    loss: str
    """Loss: a name of `limbeck list losses`, or package.module:function."""
    weight: FiniteFloat | dict[str, Any] = 1.0
    """Weight of the loss in the sum; by epoch: {name: linear, from: 0, to: 1, epochs: 10}, cosine, step or constant."""
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
    "offline",
    "two-stage",
    "assistant",
    "on-policy",
    "born-again",
    "self",
    "mutual",
    "mean-teacher",
    "class-wise",
    "teacher-free",
]
TAUGHT = ("offline", "two-stage", "assistant", "on-policy")
"""The schemes that need a teacher."""
WITH_TERMS = (*TAUGHT, "born-again", "mean-teacher", "teacher-free")
"""The schemes whose loss is made of terms."""


class Distill(Strict):
    """Who teaches, and how the loss is composed: by terms, or by a method's name with its recommended terms."""

    scheme: Scheme = "offline"
    """Who teaches: a teacher, earlier copies, other students, the student itself, or none."""
    options: dict[str, Any] = Field(default={})
    """Options of the scheme."""
    method: str | None = None
    """Method of `limbeck list methods`: NAME, NAME:SETTING, or {name: NAME, setting: SETTING}; null: the terms."""
    task_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the loss on the labels; null: the method's, else the scheme's."""
    terms: list[Term] = Field(default=[])
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
