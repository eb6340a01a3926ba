"""What limbeck says while it works: a line on stderr for what it decided by itself."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar

_MUTED = ContextVar("muted", default=False)


_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)
_WHOM = ContextVar("whom", default="")


@contextmanager
def once() -> Iterator[None]:
    """Inside, no line is said twice: the trainings of a comparison find the same of the same teacher."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


@contextmanager
def muted() -> Iterator[None]:
    """Inside, nothing is said: of a probe, whose teacher is not trained, nothing is to be learned."""
    token = _MUTED.set(True)
    try:
        yield
    finally:
        _MUTED.reset(token)


@contextmanager
def tools_silenced() -> Iterator[None]:
    """Inside, tools of others, such as exporters, tell nothing of their own steps; what they raise says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextmanager
def speaking_for(whom: str) -> Iterator[None]:
    """Inside, lines begin with whom they are about: several processes speak at once. Nothing is drawn over."""
    token = _WHOM.set(whom)
    try:
        yield
    finally:
        _WHOM.reset(token)


def named(line: str) -> str:
    """A line with whom it is about before it, where several speak at once."""
    whom = _WHOM.get()
    return f"{whom}: {line}" if whom and line != whom else line


def alone() -> bool:
    """Whether this process has the display to itself."""
    return not _WHOM.get()


def tell(line: str) -> None:
    """Say what limbeck decided, while it runs."""
    said = _SAID.get()
    if not _MUTED.get() and (said is None or line not in said):
        if said is not None:
            said.add(line)
        print(f"limbeck: {named(line)}", file=sys.stderr, flush=True)  # noqa: T201 - this is the display
