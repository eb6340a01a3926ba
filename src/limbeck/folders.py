"""Where limbeck keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """$LIMBECK_CACHE, else limbeck's folder where the system keeps caches, such as ~/.cache/limbeck on Linux."""
    if given := os.environ.get("LIMBECK_CACHE"):
        return Path(given)
    return platformdirs.user_cache_path("limbeck", appauthor=False)


def nearest(path: Path) -> Path:
    """The path itself where it exists, else the nearest one above it that does."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def data_root() -> Path:
    """$LIMBECK_DATA, else a folder in the cache."""
    return Path(os.environ.get("LIMBECK_DATA") or cache_root() / "data")
