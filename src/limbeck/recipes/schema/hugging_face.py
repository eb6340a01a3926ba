"""What the keys of a recipe say of Hugging Face models that are named in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.recipes.schema.models import Model, Student, Teacher

_SHARED = ("model", "inputs", "mean", "std", "size", "output")
"""Keys of a teacher that hold for a student which is cut out of it."""
_CUT = ("layers", "heads", "tokens")
"""Options that keep some of a folder's model."""
_OWN = ("lora", *_CUT, "replace_head")
"""Options by which a teacher differs from its folder."""


def with_teachers_model(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content, whose student, where it is cut out of its teacher, names the teacher's model and options."""
    student, teacher = recipe.get("student"), recipe.get("teacher")
    if isinstance(teacher, list) and len(teacher) == 1:
        teacher = teacher[0]
    if not isinstance(student, Mapping) or not isinstance(teacher, Mapping) or not student.get("from_teacher"):
        return dict(recipe)
    options = {key: value for key, value in teacher.items() if key not in (*Teacher.model_fields, *_OWN)}
    shared = {key: teacher[key] for key in _SHARED if key in teacher}
    return {**recipe, "student": {**options, **shared, **student}}


def check_from_teacher(student: Student, teachers: Sequence[Teacher]) -> None:
    """Raise ValueError for a student that cannot be cut out of its teacher."""
    if student.from_teacher is None:
        return
    if len(teachers) != 1:
        raise ValueError(f"student.from_teacher cuts a student out of one teacher, and there are {len(teachers)}")
    if not teachers[0].model.startswith("hf:"):
        raise ValueError(f"student.from_teacher cuts a Hugging Face model (hf:FOLDER), not {teachers[0].model}")
    if student.model != teachers[0].model:
        raise ValueError(f"student.from_teacher: the student's model is {teachers[0].model}; leave student.model out")
    odd = [name for name in ("lora", *_CUT) if name in student.options or name in teachers[0].options]
    if odd or student.weights:
        raise ValueError(f"student.from_teacher goes without {odd[0] if odd else 'weights'}; leave one out")


def set_heads(task: str, networks: Sequence[Model]) -> None:
    """Let the Hugging Face models among some networks end in what a task needs, where they do not say it."""
    for one in networks:
        if one.model.startswith("hf:") and "head" not in one.options and one.model_extra is not None:
            from limbeck.models.foreign.hugging_face_heads import head_of_task  # and torch, at seconds

            head = head_of_task(task)
            one.model_extra.update({"head": head} if head else {})
