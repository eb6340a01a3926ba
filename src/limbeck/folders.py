"""Where limbeck keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$LIMBECK_CACHE, else limbeck's folder in the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    if given := os.environ.get("LIMBECK_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "limbeck"


def nearest(path: Path) -> Path:
    """The path itself where it exists, else the nearest one above it that does."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def data_root() -> Path:
    """$LIMBECK_DATA, else a folder in the cache."""
    return Path(os.environ.get("LIMBECK_DATA") or cache_root() / "data")
