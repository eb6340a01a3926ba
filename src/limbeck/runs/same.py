"""Whether what a folder holds was made of what is asked for now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_fabric import Fabric

from limbeck.engine.devices import from_first
from limbeck.errors import RequestError
from limbeck.runs import identity
from limbeck.runs.folder import CLAIM, RECIPE
from limbeck.runs.identity import Identity

_DESCRIBES = {CLAIM, RECIPE, "environment.json", identity.FILE}
"""Files that a folder has before anything is trained in it."""
MOST = 4
"""Differences that an error names at most."""


def refuse(folder: Path, now: Identity) -> None:
    """Raise RequestError for a run's folder whose content was made of something else than what is asked for now."""
    if changed := changes(folder, now):
        before = identity.read(folder)
        again = shlex.join(["limbeck", "run", str(folder / RECIPE), "--out", str(folder), "--resume"])
        only = before is not None and changed == identity.recipe_differences(before, now)
        rather = f", or resume it with its own recipe: {again}" if only else ""
        raise RequestError(f"{folder} holds another run ({told(changed)}); choose another --out{rather}")


def record(folder: Path, now: Identity, fabric: Fabric) -> None:
    """Write down what a run is made of, as far as that is known by now.

    Raises:
        RequestError: What is there was made of something else.
        RunError: It cannot be written.
    """

    def write() -> None:
        refuse(folder, now)
        before = identity.read(folder)
        identity.write(folder, {**now, "weights": {**(before["weights"] if before else {}), **now["weights"]}})

    from_first(fabric, write)


def changes(folder: Path, now: Identity) -> list[str]:
    """What differs from what a folder's content was made of, each in a few words; nothing where it holds none yet."""
    before = identity.read(folder)
    if before is not None:
        return identity.differences(before, now)
    if not folder.exists() or all(path.name in _DESCRIBES for path in folder.iterdir()):
        return []
    return ["it does not record what it was made of: an earlier limbeck began it"]


def told(changed: Sequence[str]) -> str:
    """The differences on one line."""
    more = f"; and {len(changed) - MOST} more" if len(changed) > MOST else ""
    return "; ".join(changed[:MOST]) + more
