"""metrics.jsonl: a line an epoch, of all trainings of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.engine.callbacks.hooks import Callback, Training
from limbeck.engine.saving.files import append_line, write_text


class MetricsFile(Callback):
    """Writes each epoch's record into a run folder; only the first process does.

    Args:
        out: The run folder; None writes nothing.
    """

    def __init__(self, out: Path | None) -> None:
        self.path = out / "metrics.jsonl" if out else None

    def restart(self, phase: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Make it end with the records of this phase's finished epochs: a killed run may have written one more."""
        if self.path is None:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        others = [line for line in lines if _phase(line) not in (None, phase)]
        write_text(self.path, "".join(f"{line}\n" for line in [*others, *map(json.dumps, records)]))

    def epoch_end(self, training: Training) -> None:
        """Add a line."""
        if self.path is not None and training.first:
            append_line(self.path, json.dumps(training.record))


def _phase(line: str) -> str | None:
    try:
        return str(json.loads(line)["phase"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None
