"""What a recipe says of texts that its teacher reads in tokens of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SETS = ("text-classes", "text-sentences", "text-triples")
_OPTION, _OF_TEACHER = "teacher_tokenizer", "teacher"
_NAMES = ("input_ids", "attention_mask")
OWN = {name: name for name in _NAMES}
"""What a network reads of a batch that holds a teacher's own tokens too."""
TEACHERS = {name: f"{_OF_TEACHER}.{name}" for name in _NAMES}
"""What a teacher with a tokenizer of its own reads of it."""


def with_reduced_tokens(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content, whose texts are read in fewer tokens where its student keeps some of its teacher's alone.

    Raises:
        ValueError: The data are no texts that teacher and student may read in tokens of their own.
    """
    student, data = recipe.get("student"), recipe.get("data")
    cut = student.get("from_teacher") if isinstance(student, Mapping) else None
    most = cut.get("vocabulary") if isinstance(cut, Mapping) else None
    if most is None:
        return dict(recipe)
    if not isinstance(data, Mapping) or data.get("name") not in _SETS:
        raise ValueError(
            f"student.from_teacher.vocabulary is for the data sets {', '.join(_SETS)}, whose texts teacher and "
            "student read in tokens of their own; of a language model the outputs are one a token, and with fewer "
            "tokens the student's are others than the teacher's"
        )
    options = dict(data.get("options") or {})
    theirs = options.get(_OPTION)
    theirs = _folder(recipe.get("teacher")) if theirs in (None, _OF_TEACHER) else theirs
    given = {"tokenizer": theirs, "reduce": most}
    for name, value in given.items():
        if options.get(name, value) != value:
            raise ValueError(f"student.from_teacher.vocabulary says data.options.{name}: {value}; leave it out there")
    return {**recipe, "data": {**data, "options": {**options, _OPTION: theirs, **given}}}


def with_own_tokens(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content, in which each network is given the tokens that it reads, where it does not say so itself.

    Raises:
        ValueError: The teacher's tokenizer is to be that of its model, and that is no folder.
    """
    data, found = recipe.get("data"), dict(recipe)
    options = data.get("options") if isinstance(data, Mapping) and data.get("name") in _SETS else None
    if not isinstance(data, Mapping) or not isinstance(options, Mapping) or not options.get(_OPTION):
        return found
    if options[_OPTION] == _OF_TEACHER:
        found["data"] = {**data, "options": {**options, _OPTION: _folder(recipe.get("teacher"))}}
    for key, names in (("teacher", TEACHERS), ("student", OWN), ("assistants", OWN)):
        if key in found:
            found[key] = _reading(found[key], names)
    return found


def _reading(spec: Any, names: Mapping[str, str]) -> Any:
    if isinstance(spec, list):
        return [_reading(one, names) for one in spec]
    given = isinstance(spec, Mapping) and not spec.get("inputs")
    return {**spec, "inputs": dict(names)} if given else spec


def _folder(teacher: Any) -> str:
    one = teacher[0] if isinstance(teacher, list) and teacher else teacher
    kind, _, folder = str(one.get("model") if isinstance(one, Mapping) else "").partition(":")
    if kind != "hf" or not folder:
        raise ValueError(
            f"{_OPTION}: {_OF_TEACHER} is that of a teacher hf:FOLDER; name the tokenizer's file or folder"
        )
    return folder
