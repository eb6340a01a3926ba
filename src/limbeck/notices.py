"""What limbeck says while it works: a line on stderr for what it decided by itself."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """Say what limbeck decided, while it runs."""
    print(f"limbeck: {line}", file=sys.stderr, flush=True)  # noqa: T201 - this is the display
