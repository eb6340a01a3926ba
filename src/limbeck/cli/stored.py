"""What `limbeck cache` prints."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box, filesize
from rich.table import Table

from limbeck.cli.printing import console as _console
from limbeck.runs.cache.content import Entry, Pruned
from limbeck.runs.outputs.beforehand import Estimate


def estimate(estimate: Estimate) -> None:
    """What storing teacher outputs will take, on stderr."""
    seen = "" if estimate.views == 1 else f" in {estimate.views} views"
    cost = f"{filesize.decimal(estimate.bytes)}, about {estimate.seconds:,.0f} s of the teacher"
    token = "" if estimate.token_bytes is None else f" ({estimate.token_bytes:,.0f} bytes a token)"
    _tell(f"{estimate.samples:,} samples{seen} into {estimate.place}: {cost}{token}")


def shard(done: int, of: int) -> None:
    """How far the storing is, on stderr."""
    _tell(f"shard {done} of {of}")


def stored(result: Mapping[str, Any], taken_by: str) -> None:
    """What is stored and which recipes take it, or what the check of it found."""
    if "error" in result:
        checked = f"{result['shards']} shard(s) whole, {result['samples']:,} answers asked again"
        _console().print(f"{result['place']}: {checked}, largest error {result['error']:.2%}", soft_wrap=True)
        return
    token = f" ({result['token_bytes']:,.0f} bytes a token)" if "token_bytes" in result else ""
    size = f"{filesize.decimal(result['bytes'])}{token} in {result['seconds']:.1f} s"
    line = f"{result['place']}: {result['samples']:,} samples × {result['views']}, {size}"
    _console().print(f"{line}; {taken_by}", soft_wrap=True)


def given(result: Mapping[str, Any]) -> None:
    """What was stored of a server's log-probabilities."""
    size = f"{filesize.decimal(result['bytes'])} ({result['token_bytes']:,.0f} bytes a token)"
    line = f"{result['place']}: {result['samples']:,} samples, the {result['top_k']} likeliest tokens, {size}"
    _console().print(f"{line}; StoredTeacher({result['place']!r}) reads it", soft_wrap=True)


def listing(entries: Sequence[Entry]) -> None:
    """The cache's entries."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("kind", "made of", "size", "age", "last use"):
        table.add_column(column, justify="left" if column in ("kind", "made of") else "right", overflow="fold")
    now = time.time()
    for entry in entries:
        words = f"{entry.words} (unreachable: {entry.unreachable})" if entry.unreachable else entry.words
        used = "in use" if entry.in_use else _ago(now - entry.used)
        table.add_row(entry.kind, words, _size(entry.bytes), _ago(now - entry.made), used)
    console = _console()
    console.print(table)
    console.print(f"{len(entries)} entries, {_size(sum(entry.bytes for entry in entries))}")


def pruned(done: Pruned, dry_run: bool) -> None:
    """What was deleted, or what would be."""
    console = _console()
    for entry in done.gone:
        why = f" ({entry.unreachable})" if entry.unreachable else ""
        verb = "would delete" if dry_run else "deleted"
        console.print(f"{verb} {entry.kind} {entry.path}: {entry.words}, {_size(entry.bytes)}{why}", soft_wrap=True)
    for entry in done.in_use:
        console.print(f"kept {entry.path}: a running process uses it", soft_wrap=True)
    freed = _size(sum(entry.bytes for entry in done.gone))
    console.print(f"{freed} {'would be freed' if dry_run else 'freed'}, {_size(done.left_bytes)} left")


def _ago(seconds: float) -> str:
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def _size(count: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} B"


def _tell(line: str) -> None:
    print(f"limbeck: {line}", file=sys.stderr, flush=True)  # noqa: T201 - said while it runs
