"""The command, called in this process as a shell calls it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from limbeck.cli.main import main


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


Limbeck = Callable[..., Said]


def call(arguments: tuple[str, ...], patch: pytest.MonkeyPatch) -> int:
    """Call `limbeck` with these arguments, and give its exit status."""
    patch.setattr(sys, "argv", ["limbeck", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)
