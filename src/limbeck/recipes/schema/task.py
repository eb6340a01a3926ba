"""What is learned, as recipes say it."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from limbeck.recipes.schema.fields import Open


class Task(Open):
    """What is learned, by name; other keys are the task's options, such as ignore_index or class_weights."""

    name: str
    """classification, multi-label, regression, token-classification, language-modelling, segmentation, embedding, or
    module:Class."""

    @model_validator(mode="before")
    @classmethod
    def by_name(cls, given: Any) -> Any:
        """A name stands for a task without options."""
        return {"name": given} if isinstance(given, str) else given
