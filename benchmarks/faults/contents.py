"""What commands leave: every file with its bytes, less the times in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.faults.forked import Place

TIMED = ("last.pt", "compare.html")
"""Files that hold times in a form of their own: that they are there counts."""


def contents(place: Place) -> dict[str, str]:
    """All files and empty folders of a place, with a digest of what they hold."""
    found = {}
    for root in (place.work, place.cache):
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(place.root))
            if path.is_file():
                found[name] = "" if path.name in TIMED else _digest(path)
            elif not any(path.iterdir()):
                found[f"{name}/"] = ""
    return found


def differences(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """What is missing, too much or different; nothing where all is as it should be."""
    return [
        *(f"{name} is missing" for name in wanted if name not in found),
        *(f"{name} is left over" for name in found if name not in wanted),
        *(f"{name} differs" for name in wanted if name in found and found[name] != wanted[name]),
    ]


def negative_times(place: Place) -> list[str]:
    """Files in which a time is negative."""
    found = []
    for path in sorted(place.root.rglob("*.json*")):
        if any(value < 0 for value in _times(_read(path))):
            found.append(f"{path.relative_to(place.root)} holds a negative time")
    return found


def _digest(path: Path) -> str:
    if path.suffix in (".json", ".jsonl"):
        content = json.dumps(_untimed(_read(path)), sort_keys=True).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def _untimed(value: Any) -> Any:
    """The same without seconds; outputs of the teacher that a resumed run finds, the first process has stored."""
    if isinstance(value, dict):
        return {key: _untimed(one) for key, one in value.items() if not _is_time(key)}
    if isinstance(value, list):
        return [_untimed(one) for one in value]
    return value.replace(" MB found in ", " MB stored in ") if isinstance(value, str) else value


def _is_time(key: str) -> bool:
    """Whether a key of limbeck's files names a time, such as seconds or teacher_seconds."""
    return key.rpartition("_")[2] == "seconds"


def _times(value: Any) -> list[float]:
    if isinstance(value, dict):
        own = [float(one) for key, one in value.items() if _is_time(key) and isinstance(one, int | float)]
        return own + [time for one in value.values() for time in _times(one)]
    return [time for one in value for time in _times(one)] if isinstance(value, list) else []
