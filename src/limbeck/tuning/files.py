"""A space in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from limbeck.errors import RequestError
from limbeck.recipes.document import CHARACTERS, parse
from limbeck.tuning.space import NOTHING, GivenSpace, read_space


def space_in(path: Path | None, contenders: Sequence[str]) -> GivenSpace:
    """The space of a YAML file; nothing where none is given.

    Raises:
        RequestError: It cannot be read, or is no space.
    """
    if path is None:
        return NOTHING
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise RequestError(f"cannot read the space {path}: {reason}") from error
    return read_space(parse(text, str(path)), str(path), contenders)
