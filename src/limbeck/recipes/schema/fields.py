"""What the parts of a recipe have in common: kinds of values, and mappings that are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from limbeck.recipes.schema.meanings import of_keys

Taps = str | list[str]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
"""auto: bf16 autocast where the network and the device gain from it, else fp32."""
Compile = Literal["auto", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""auto: on GPUs, where a trial shows that it pays within the run; the others are torch.compile's modes."""

Layout = Literal["auto", "channels_last", "contiguous"]
Keep = Literal["last", "best"]
"""auto: channels-last on CPUs and NVIDIA GPUs, where the student's gradients are right in it."""


Count = Annotated[int, Field(gt=0, lt=2**31)]
Epochs = Annotated[int, Field(gt=0, le=1_000_000)]
"""Each epoch leaves a record in every later checkpoint: a million are some hundred megabytes."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
"""What torch's generators take."""


class Checked(BaseModel):
    """Numbers are finite, and true and false are none."""

    model_config = ConfigDict(allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """With the meanings of the keys."""
        made = handler(schema)
        own = handler.resolve_ref_schema(made)
        for name, meaning in of_keys(cls).items():
            if name in own.get("properties", {}):
                own["properties"][name]["description"] = meaning
        return made

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
