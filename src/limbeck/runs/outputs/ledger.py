"""Where a run's teacher outputs came from: in its result and its table, and kept when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.engine.devices.fabric import from_first
from limbeck.engine.saving.files import write_json
from limbeck.errors import as_request
from limbeck.teachers import StoredTeacher
from limbeck.teachers.coding import Coding

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FILE = "teacher_outputs.json"


@dataclass(frozen=True)
class Outputs:
    """Where a teacher's outputs came from.

    Attributes:
        where: "online" (at every step), "memory" or "disk".
        reason: What was decided and why, in one line.
        place: Of outputs on disk, their folder or address.
        found: Whether they were there before the run, from an earlier one.
        dtype: How their values are kept.
        top_k: How many classes are kept of each sample; None for all.
        draws: How many were drawn in place of all.
        bits, power: As `limbeck.teachers.coding.Coding` has them.
    """

    where: str
    reason: str
    place: str | None = None
    found: bool = False
    dtype: str = "float32"
    top_k: int | None = None
    draws: int | None = None
    bits: int | None = None
    power: float = 1.0

    @classmethod
    def stored(cls, teacher: StoredTeacher, what: str, found: bool) -> Outputs:
        """Those that a teacher reads from disk."""
        return cls("disk", what, str(teacher.place), found, **asdict(teacher.coding))


def table_line(outputs: Mapping[str, Any]) -> str:
    """What a table says of an entry of result.json: nothing where the outputs were computed by the run itself."""
    if outputs["where"] != "disk":
        return ""
    coding = Coding(**{one.name: outputs[one.name] for one in fields(Coding) if one.name in outputs})
    line = f"teacher outputs: {'found' if outputs['found'] else 'stored'} in {outputs['place']} as {coding.words}"
    return line if coding == Coding("float32") else f"{line}: rounded, so figures differ from those with store: memory"


class Ledger:
    """The teacher outputs of a run by a key each, written into its folder as soon as they are known.

    Args:
        folder: The run's; None writes nothing.
        fabric: Its first process reads and writes.
        resume: Begin with what the interrupted run has written.
        known: Begin with these.
    """

    def __init__(
        self,
        folder: Path | None = None,
        fabric: Fabric | None = None,
        resume: bool = False,
        known: Mapping[str, Outputs] | None = None,
    ) -> None:
        self._path = None if folder is None else folder / FILE
        self._writes = fabric is None or fabric.is_global_zero
        self._known: dict[str, Outputs] = dict(known or {})
        if resume and fabric is not None and self._path is not None:
            path = self._path
            self._known = from_first(fabric, lambda: _read(path) if path.exists() else {})

    @property
    def known(self) -> dict[str, Outputs]:
        """All of them by their keys."""
        return dict(self._known)

    def get(self, key: str) -> Outputs | None:
        """What is known of these outputs."""
        return self._known.get(key)

    def note(self, key: str, outputs: Outputs) -> None:
        """Write down outputs that were not known."""
        self._known[key] = outputs
        if self._path is not None and self._writes:
            write_json(self._path, {name: asdict(one) for name, one in self._known.items()})

    def merge(self, noted: Mapping[str, Outputs]) -> None:
        """Write down what another process has noted; of outputs that it stored, and this one found, that it did."""
        for key, outputs in noted.items():
            known = self._known.get(key)
            if known is None or (known.found and not outputs.found):
                self.note(key, outputs)

    def entries(self) -> list[dict[str, Any]]:
        """All of them, as result.json holds them."""
        return [asdict(one) for one in self._known.values()]


def _read(path: Path) -> dict[str, Outputs]:
    with as_request(lambda reason: f"{path} is damaged ({reason}); delete it, and teacher outputs are decided anew"):
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: Outputs(**one) for key, one in content.items()}
