"""The two ways in which limbeck says no: the request was wrong, or the run failed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class RequestError(ValueError):
    """What was asked for cannot be done: an unknown name, shapes that do not fit, an unreadable file.

    The message is one line: the cause, the valid choices, the remedy. The command line exits with 2.
    """


class RunError(RuntimeError):
    """A run that began well has failed: a loss that is not finite, a full disk. The command line exits with 1."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> RequestError:
    """The error for a name that is not among `choices`, with the nearest ones (or all, if they are few)."""
    known = sorted(set(choices))
    close = nearest(name, known)
    if close:
        hint = f"did you mean {' or '.join(close)}?"
    elif len(known) <= 12:
        hint = f"valid: {', '.join(known)}" if known else "there is none to choose from"
    else:
        hint = f"valid are {len(known)} names, such as {', '.join(known[:8])}"
    return RequestError(f"unknown {kind} {name!r}; {hint}")


def nearest(name: str, choices: Iterable[str], most: int = 3) -> list[str]:
    """The choices that look most like `name`, best first; also those that contain it, or are contained in it."""
    known = list(choices)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    inside = [c for c in known if len(name) > 2 and len(c) > 2 and (name in c or c in name) and c not in close]
    return (close + inside)[:most]


@contextmanager
def as_request(tell: Callable[[str], str]) -> Iterator[None]:
    """Raise RequestError for whatever somebody's model or file raises inside: what `tell` makes of its first line."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(tell(reason_of(error))) from error


def reason_of(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
