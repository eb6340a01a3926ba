"""The engine does not import what Fabric only asks for its version, and leaves the real package to whoever needs it."""

from __future__ import annotations

import sys

import pytest

from limbeck.imports import version_alone


def test_what_is_there_or_not_installed_is_left_as_it_is() -> None:
    with version_alone("no-such-package"):
        assert "no-such-package" not in sys.modules
    with version_alone("pytest"):  # it is imported already, and stays what it is
        assert sys.modules["pytest"] is pytest


def test_fabric_knows_the_version_all_the_same() -> None:
    pytest.importorskip("torchmetrics")
    from lightning_fabric.utilities import imports

    assert imports._TORCHMETRICS_GREATER_EQUAL_1_0_0
    assert sys.modules["torchmetrics"].__file__  # the real one, and no stand-in
