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

    @property
    def output(self) -> str | int | None:
        """Which part of what a model returns is its output, where one of limbeck's tasks is told so."""
        found = None if ":" in self.name else self.options.get("output")
        return found if isinstance(found, str | int) else None

    @model_validator(mode="before")
    @classmethod
    def by_name(cls, given: Any) -> Any:
        """A name stands for a task without options."""
        return {"name": given} if isinstance(given, str) else given
