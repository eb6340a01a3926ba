"""Ctrl-C and SIGTERM: one line that says how to go on, and the exit status that shells expect."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM, by which schedulers and `kill` end a process: it ends a command as Ctrl-C does."""


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, as SIGINT KeyboardInterrupt; processes that are forked meanwhile die of both.

    Code of others may swallow either, as an import that it interrupts, and fail of what is missing then: such an error
    counts as the interruption.
    """
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python lets no one handle signals
        yield
        return
    own = os.getpid()
    received: list[BaseException] = []

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            received.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
            raise received[-1]
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    handled = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # in the background it may be ignored
        handled.append(signal.SIGINT)
    before = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    except Exception as error:
        if received:
            raise received[-1] from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumable(folders: Sequence[Path] = (), named: str = "--out") -> Iterator[None]:
    """End a command that is interrupted inside by one line, with the command that goes on.

    Args:
        folders: Where a run or comparison is at work, in the last of them; empty before it has begun, and for a command
            that goes on by itself when it is given again.
        named: The option that names the folder when the command goes on: "--out", beside which stands --resume, or
            "--resume", which takes the folder itself.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        again = _again(folders) if named == "--out" else _into(folders, named)
        end(error, shlex.join(["limbeck", *again]))


def _into(folders: Sequence[Path], option: str) -> list[str]:
    """The command with its folder behind this option, in the place of --out."""
    given: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in ("--out", option):
            next(words, None)
        elif not word.startswith(("--out=", f"{option}=")):
            given.append(word)
    return [*given, option, str(folders[-1])] if folders else sys.argv[1:]


def _again(folders: Sequence[Path]) -> list[str]:
    given = [word for word in sys.argv[1:] if word != "--resume"]
    named = _out(given)
    folder = folders[-1] if folders else named
    if folder is None or not (folder / "recipe.yaml").exists():  # nothing to resume: it can begin as before
        return given
    return [*given, *([] if named else ["--out", str(folder)]), "--resume"]


def _out(given: Sequence[str]) -> Path | None:
    """What --out says."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--out":
            return Path(value or following)
    return None


def end(error: BaseException, again: str | None = None) -> NoReturn:
    """Exit as a process that was ended by SIGINT or SIGTERM."""
    what, number = ("terminated", signal.SIGTERM) if isinstance(error, Terminated) else ("interrupted", signal.SIGINT)
    devices = sys.modules.get("limbeck.engine.devices.fabric")  # not imported for this: that takes seconds
    if devices is None or devices.is_first():
        go_on = "" if again is None else f"; resume with: {again}"
        print(f"limbeck: {what}{go_on}", file=sys.stderr)  # noqa: T201
    sys.exit(128 + number)
