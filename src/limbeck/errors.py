"""The two ways in which limbeck says no: the request was wrong, or the run failed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

LINE = 300
"""Characters of an error that the command line prints, at most."""
VALUE = 60
"""Characters of a value that an error repeats, at most."""


class RequestError(ValueError):
    """What was asked for cannot be done: an unknown name, shapes that do not fit, an unreadable file.

    The message is one line: the cause, the valid choices, the remedy. The command line exits with 2.
    """


class RunError(RuntimeError):
    """A run that began well has failed: a loss that is not finite, a full disk. The command line exits with 1."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> RequestError:
    """The error for a name that is not among `choices`, with the nearest ones (or all, if they are few)."""
    known = sorted(set(choices))
    close = nearest(str(name), known)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(known) <= 12:
        hint = f"valid: {', '.join(known)}" if known else "nothing of this kind is defined"
    else:
        hint = f"valid are {len(known)} names, such as {', '.join(known[:8])}"
    return RequestError(f"unknown {kind} {shown(name)}; {hint}")


def nearest(name: str, choices: Iterable[str], most: int = 3) -> list[str]:
    """The choices that look most like `name`, best first; also those that contain it, or are contained in it."""
    known, name = list(choices), name[:VALUE]
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    inside = [c for c in known if len(name) > 2 and len(c) > 2 and (name in c or c in name) and c not in close]
    return (close + inside)[:most]


@contextmanager
def as_request(tell: Callable[[str], str]) -> Iterator[None]:
    """Raise RequestError for whatever somebody's model or file raises inside: what `tell` makes of its first line."""
    try:
        yield
    except (RequestError, RunError):
        raise
    except Exception as error:
        raise RequestError(tell(reason_of(error))) from error


def reason_of(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


@contextmanager
def whose(name: str) -> Iterator[None]:
    """What is raised inside has a note of whose training it was; the command line tells it before the message."""
    try:
        yield
    except Exception as error:
        error.add_note(name)
        raise


def counted(count: int, noun: str) -> str:
    """A number of things in words.

    >>> counted(1, "view"), counted(1437, "sample")
    ('1 view', '1,437 samples')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown(value: object, most: int = VALUE) -> str:
    """A value as an error repeats it: a long one is cut in the middle, and its length told.

    >>> shown("x" * 5000, most=10)
    "'xxxx…xxx' (5,002 characters)"
    """
    text = repr(value)
    return text if len(text) <= most else f"{_cut(text, most)} ({len(text):,} characters)"


def some(names: Sequence[str], most: int = 6) -> str:
    """The first names of many, and how many more there are.

    >>> some(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    first = ", ".join(names[:most])
    return first if len(names) <= most else f"{first} and {len(names) - most} more"


def one_line(message: str, most: int = LINE) -> str:
    """A message on one line of at most so many characters, with nothing in it that a terminal would obey.

    Words without an end are cut first, in the middle, and then the whole.

    >>> one_line("two\\nlines and \\x1b[31m")
    'two lines and \\\\x1b[31m'
    """
    words = " ".join(message.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    if len(line) > most:
        line = re.sub(rf"\S{{{VALUE + 1},}}", lambda word: _cut(word[0], VALUE), line)
    return _cut(line, most)


def _cut(text: str, most: int) -> str:
    """The text's two ends, where it is longer than `most`."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"
