"""One part in a process of its own, which may hang or crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHOWN = 3000
"""Characters of what a failed part said that are shown."""


@dataclass
class Outcome:
    """What a part found.

    Attributes:
        rows: Its lines, those that were there when it failed among them.
        data: Which data it used; "" for none.
        seconds: How long it ran.
        failed: Why it failed, in one line; "" where it did not.
        log: The end of what a failed part wrote.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    data: str = ""
    seconds: float = 0.0
    failed: str = ""
    log: str = ""

    def as_dict(self) -> dict[str, Any]:
        """What the result file holds of it."""
        return {name: value for name, value in asdict(self).items() if name != "log"}


def carry_out(name: str, seconds: float, dry: bool, root: Path | None) -> Outcome:
    """A part of `benchmarks.gpu.parts`, which has so many seconds."""
    options = [*(["--dry"] if dry else []), *(["--data-root", str(root)] if root else [])]
    return watched([sys.executable, "-X", "faulthandler", "-m", "benchmarks.gpu.parts", name, *options], seconds)


def watched(command: Sequence[str], seconds: float) -> Outcome:
    """Run a command, whose last argument will be the file to which it tells one JSON object a line.

    {"row": …} is a line of the table, {"data": …} says which data is used, {"now": …} what is begun, and {"failed": …}
    why it ends.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="limbeck-gpu-", ignore_cleanup_errors=True) as folder:
        told, log = Path(folder) / "told.jsonl", Path(folder) / "log.txt"
        own = {"LIMBECK_CACHE": str(Path(folder) / "cache"), "TORCHINDUCTOR_CACHE_DIR": _compiled()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, str(told)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        done = _read(told)
        now = done.pop("now", "")
        failed = done.pop("failed", "") or _reason(code, seconds)
        outcome = Outcome(**done, seconds=round(time.monotonic() - began, 1), failed=failed)
        if failed:
            outcome.failed += f" (in {now})" if now else ""
            outcome.log = log.read_text(encoding="utf-8", errors="replace")[-SHOWN:].strip()
        return outcome


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with all that it started; one that the driver holds is left alone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _reason(code: int | None, seconds: float) -> str:
    if code is None:
        return f"took longer than {seconds:.0f} s"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with {code}" if code else ""


def _read(told: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": []}
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    for line in lines:
        with suppress(json.JSONDecodeError):  # a line that was being written
            for kind, value in json.loads(line).items():
                if kind == "row":
                    found["rows"].append(value)
                else:
                    found[kind] = value
    return found


def _compiled() -> str:
    """Where compiled kernels are kept, for all parts of this session."""
    return os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(Path(tempfile.gettempdir()) / "limbeck-gpu-inductor")
