"""What limbeck says while it works: a line on stderr for what it decided by itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_MUTED = ContextVar("muted", default=False)


@contextmanager
def muted() -> Iterator[None]:
    """Inside, nothing is said: of a probe, whose teacher is not trained, nothing is to be learned."""
    token = _MUTED.set(True)
    try:
        yield
    finally:
        _MUTED.reset(token)


def tell(line: str) -> None:
    """Say what limbeck decided, while it runs."""
    if not _MUTED.get():
        print(f"limbeck: {line}", file=sys.stderr, flush=True)  # noqa: T201 - this is the display
