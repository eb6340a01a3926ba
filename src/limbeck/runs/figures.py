"""Where a student's test figures stand in what a run or a comparison has written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tested(entry: Mapping[str, Any], figure: str) -> float | None:
    """A test figure of a student's or a teacher's entry, such as "accuracy"; None where it has none of that name."""
    test = entry.get("test")
    value = test.get(figure) if isinstance(test, Mapping) else None
    return entry.get(f"test_{figure}") if value is None else value


def monitored(entry: Mapping[str, Any]) -> str:
    """The figure by which students of a task are compared; accuracy, where no other is named."""
    name = entry.get("monitor")
    return name if isinstance(name, str) else "accuracy"
