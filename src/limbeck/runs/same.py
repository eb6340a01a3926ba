"""Whether what a folder holds was made of what is asked for now."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.engine.devices.fabric import from_first
from limbeck.errors import RequestError, counted
from limbeck.runs import identity
from limbeck.runs.folder import CLAIM, RECIPE
from limbeck.runs.identity import Identity

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_DESCRIBES = {CLAIM, RECIPE, "environment.json", identity.FILE}
"""Files that a folder has before anything is trained in it."""
_IN_EPOCHS = re.compile(r"(epochs|schedule\.\w+|distill\.(terms|stages)\..*(ramp|epochs|milestones\S*)) was ")
"""The beginning of differences that another number of epochs makes by itself."""
MOST = 4
"""Differences that an error names at most."""


def refuse(folder: Path, now: Identity) -> None:
    """Raise RequestError for a run's folder whose content was made of something else than what is asked for now."""
    if changed := changes(folder, now):
        before = identity.read(folder)
        if before is not None and _only_longer(before, now, changed):
            raise RequestError(_how_to_train_longer(folder, before, now))
        again = shlex.join(["limbeck", "run", str(folder / RECIPE), "--out", str(folder), "--resume"])
        only = before is not None and changed == identity.recipe_differences(before, now)
        rather = f", or resume it with its own recipe: {again}" if only else ""
        raise RequestError(f"{folder} holds another run ({reasons(changed)}); choose another --out{rather}")


def _only_longer(before: Identity, now: Identity, changed: Sequence[str]) -> bool:
    """Whether nothing differs but the number of epochs, and what a method or schedule counts in them."""
    if before["recipe"]["epochs"] == now["recipe"]["epochs"] or changed != identity.recipe_differences(before, now):
        return False
    return all(_IN_EPOCHS.match(one) for one in changed)


def _how_to_train_longer(folder: Path, before: Identity, now: Identity) -> str:
    """A run's epochs are a part of all its figures: its schedule, its baseline and its budget are made for them."""
    had, epochs = before["recipe"]["epochs"], now["recipe"]["epochs"]
    longer = ["limbeck", "run", str(folder / RECIPE), "--epochs", str(epochs), "--out", f"{folder}-{epochs}-epochs"]
    root = before["data"]["root"]
    longer += [] if root is None else ["--data-root", root]
    return (
        f"{folder} is a run of {counted(had, 'epoch')}; train its students anew for {epochs}, by the kept teacher: "
        + shlex.join(longer)
    )


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
    return [f"it does not record what it was made of: {identity.FILE} is missing"]


def reasons(changed: Sequence[str]) -> str:
    """The differences on one line."""
    more = f"; and {len(changed) - MOST} more" if len(changed) > MOST else ""
    return "; ".join(changed[:MOST]) + more
