"""One line of the table: a situation, how often it was tried, how often all was right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Row:
    """What came of a situation.

    Attributes:
        situation: What was done to limbeck.
        what: What must hold for a trial to be right.
        tried: Number of trials.
        faults: For each trial that was not right, what was wrong.
        note: What else is to be known, such as where kills fell, or why nothing could be tried.
    """

    situation: str
    what: str
    tried: int = 0
    faults: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, case: str, faults: list[str]) -> None:
        """Count a trial."""
        self.tried += 1
        if faults:
            self.faults.append(f"{case}: {'; '.join(faults[:4])}")

    def show(self) -> None:
        """Print the line."""
        right = self.tried - len(self.faults)
        print(
            f"{self.situation:48} {self.tried:4} tried {right:4} right {len(self.faults):3} wrong  {self.note}",
            flush=True,
        )
        for fault in self.faults:
            print(f"    {fault}", flush=True)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "right": self.tried - len(self.faults), "wrong": len(self.faults)}
