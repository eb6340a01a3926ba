"""What a search is called in its storage, and that its folder keeps the name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from limbeck.engine.saving.files import write_json
from limbeck.errors import RequestError, as_request
from limbeck.tuning.asked import Asked

FILE = "search.json"


@dataclass(frozen=True)
class Begun:
    """A search's names.

    Attributes:
        name: In the storage.
        drawn_by: What values are a function of: the same for other numbers of trials, so that more can be added.
        shared: Whether the storage is one that several searches may use.
    """

    name: str
    drawn_by: str
    shared: bool

    def write(self, folder: Path) -> None:
        """Write it down; not where a storage is, which may hold a password."""
        write_json(folder / FILE, {"name": self.name, "shared": self.shared})


def begun(asked: Asked, made_of: str, folder: Path | None) -> Begun:
    """The names of a search, those that it had where it is resumed: also with more trials.

    In a storage of its own a search may be given more trials later. In one that several use, processes work on one
    search if they are asked for the same: also for as many trials and fresh seeds, and as much time.

    Args:
        asked: What it is asked for.
        made_of: What recipe, space and data are called.
        folder: Of a resumed search.

    Raises:
        RequestError: It began with --storage and is resumed without, or the other way round.
    """
    shared, before = asked.storage is not None, _before(folder)
    if before is not None:
        if before.shared != shared:
            remedy = "give its --storage again" if before.shared else "leave --storage out"
            where = "in a storage of --storage" if before.shared else "in its folder"
            raise RequestError(f"the trials of {folder} are {where}; {remedy}, or choose another --out")
        return Begun(before.name, made_of, shared)
    if not shared:
        return Begun(made_of, made_of, shared)
    budget = [f"trials {asked.trials}", f"fresh seeds {asked.fresh}"]
    budget += [] if asked.minutes is None else [f"minutes {asked.minutes:g}"]
    return Begun(", ".join((made_of, *budget)), made_of, shared)


def _before(folder: Path | None) -> Begun | None:
    path = None if folder is None else folder / FILE
    if path is None or not path.exists():
        return None
    with as_request(lambda reason: f"{path} is damaged ({reason}); choose another --out"):
        content = json.loads(path.read_text(encoding="utf-8"))
        return Begun(str(content["name"]), "", bool(content["shared"]))
