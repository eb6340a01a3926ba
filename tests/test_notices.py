"""Lines that limbeck says by itself."""

from __future__ import annotations

import pytest

from limbeck.notices import once, tell


def test_inside_once_no_line_is_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with once():
        tell("one")
        tell("two")
        tell("one")
    tell("one")
    assert capsys.readouterr().err.splitlines() == ["limbeck: one", "limbeck: two", "limbeck: one"]
