"""Whether the networks of torchvision and timm can teach and learn: one of each family, an hour or two on one core.

    python -m benchmarks zoo                      # tries what is not in benchmarks/results/zoo.json yet
    python -m benchmarks zoo --limit 20           # at most so many of them
    python -m benchmarks zoo --only timm:vit_tiny_patch16_224,torchvision:resnet18    # these, also anew

Each network (`benchmarks.zoo.trial`) is a process with a time limit of its own, so that one that hangs or crashes takes
no other along. The result file is written after each, and an interrupted campaign goes on where it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu.process import Outcome, watched
from benchmarks.zoo.families import networks

SECONDS = 900.0
"""The time limit of a network."""
STEPS = ("build", "taps", "pairs", "teaches", "learns", "weights", "onnx")
RESULTS = Path(__file__).parent.parent / "results"


def measure(only: Sequence[str] = (), limit: int | None = None, out: Path | None = None) -> int:
    """Try networks, print a table, write the result file; 0 if nothing failed.

    Args:
        only: Their names; all of the list that are not in the result file by default.
        limit: At most so many.
        out: Folder of the result file, benchmarks/results by default.
    """
    from limbeck.runs.folder import environment

    path, listed = (out or RESULTS) / "zoo.json", networks()
    rows: dict[str, dict[str, Any]] = {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))["figures"]["rows"]
        rows = {row["network"]: row for row in before if row["network"] in listed}
    todo = list(only) or [name for name in listed if name not in rows]
    for name in todo[:limit]:
        done = watched([sys.executable, "-X", "faulthandler", "-m", "benchmarks.zoo.trial", name], SECONDS)
        rows[name] = _row(name, done)
        print(f"{name}: {rows[name]['failed'] or 'right'}, {done.seconds:.0f} s", flush=True)
        if rows[name]["failed"] and done.log:
            sys.stderr.write(f"{done.log}\n")
        content = {
            "command": "python -m benchmarks zoo",
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(),
            "figures": {"rows": sorted(rows.values(), key=lambda row: row["network"])},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join(table(list(rows.values()))))
    print(summary(list(rows.values())))
    return int(any(row["failed"] for row in rows.values()))


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """How many networks are right, and which are not, in a few sentences."""
    right = [row for row in rows if not row["failed"]]
    endings = [str(row.get("onnx", "")) for row in right]
    refused = sum(one.startswith("refused") for one in endings)
    slow = sum("takes longer" in one for one in endings)
    wrong = "; ".join(f"{row['network']}: {row['failed']}" for row in rows if row["failed"])
    return (
        f"Of the {len(networks())} networks {len(rows)} were tried, and {len(right)} are right in every step. "
        f"Torch wrote {len(right) - refused - slow} of these as ONNX with the same answers, refused {refused}, and did "
        f"not finish {slow} in time.{f' Not right: {wrong}.' if wrong else ''}"
    )


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of a table of the rows in the result file."""
    lines = [f"| network | parameters | pixels | {' | '.join(STEPS[1:])} | seconds |", f"|{'---|' * (len(STEPS) + 3)}"]
    for row in rows:
        cells = [str(row.get(step, "")).replace("|", "\\|") for step in STEPS[1:]]
        size = f"{row.get('parameters', 0):,} | {row.get('size', '')}"
        lines.append(f"| {row['network']} | {size} | {' | '.join(cells)} | {row['seconds']:.0f} |")
    return lines


def _row(name: str, done: Outcome) -> dict[str, Any]:
    """What is recorded of a network."""
    row: dict[str, Any] = {"network": name}
    for told in done.rows:
        row |= told
    wrong = [f"{step}: {row[step]}" for step in STEPS if str(row.get(step, "")).startswith("FAILED")]
    return {**row, "failed": "; ".join([*([done.failed] if done.failed else []), *wrong]), "seconds": done.seconds}
