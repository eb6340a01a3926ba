"""All that ten minutes on one GPU can tell: tests, speed beside loops written by hand, and one verdict.

    python -m benchmarks gpu                 # at most ten minutes; writes benchmarks/results/gpu-NAME.json
    python -m benchmarks gpu --out DIR       # writes it to another folder
    python -m benchmarks gpu --dry           # every part on the CPU at the smallest size; the figures mean nothing

Each part (`benchmarks.gpu.parts`) is a process with a time limit of its own, so that one which hangs or crashes takes
no other along: the reason is recorded, and what it had measured until then. This process imports nothing but Python's
own library, and writes the result file after each part.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.process import Outcome, carry_out
from benchmarks.record import gpu_table

TOTAL = 570.0
"""Seconds that all parts have together: the ten minutes, less what starting and ending take."""
LEAST = 20.0
"""Seconds without which no part is begun."""
BUDGETS = {
    "machine": 60.0,
    "tests": 150.0,
    "pair-eager": 100.0,
    "mnist-mlp": 60.0,
    "cifar10-tutorial": 60.0,
    "cifar100-compare": 140.0,
    "pair-compiled": 200.0,
    "pair-graphs": 200.0,
}
"""The parts in their order, each with its time limit in seconds; compiling, which may take long, comes last."""
SLACK = 5.0
"""How much longer a dry run may take, which may have a slow and busy machine."""
RESULTS = Path(__file__).parent.parent / "results"


def measure(*, dry: bool, out: Path | None, root: Path | None) -> int:
    """Carry out all parts, print the table, write the result file; 0 if no part failed.

    Args:
        dry: On the CPU, at the smallest size.
        out: Folder of the result file.
        root: Folder of the data sets.
    """
    began = time.monotonic()
    folder = out or (Path(tempfile.mkdtemp(prefix="limbeck-gpu-")) if dry else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "command": "python -m benchmarks gpu" + (" --dry" if dry else ""),
        "date": datetime.now(UTC).date().isoformat(),
        "dry": dry,
        "parts": [],
    }
    path = folder / "gpu.json"
    slack = SLACK if dry else 1.0
    for name, budget in BUDGETS.items():
        left = slack * TOTAL - (time.monotonic() - began)
        limit = min(slack * budget, left)
        done = carry_out(name, limit, dry, root) if left >= LEAST else Outcome(failed="no time was left")
        if name == "machine":
            if done.failed:
                sys.stderr.write(f"no GPU can be measured: {done.failed}\n{done.log}\n")
                return 2
            content |= done.rows[0]
            path = folder / f"gpu-{_slug(content['gpu']['name'])}.json"
            continue
        content["parts"].append({"name": name, **done.as_dict()})
        content["seconds"] = round(time.monotonic() - began, 1)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {len(done.rows)} lines in {done.seconds:.0f} s{_failure(done)}", flush=True)
        if done.failed and done.log:
            sys.stderr.write(f"{done.log}\n")
    print("\n".join(gpu_table(content)))
    print(f"written: {path}")
    return int(any(part["failed"] for part in content["parts"]))


def _failure(done: Outcome) -> str:
    return f"; FAILED: {done.failed}" if done.failed else ""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
