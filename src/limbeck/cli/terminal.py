"""Printing on terminals and files that cannot show every character: what a command has done is not lost over that."""

from __future__ import annotations

import codecs
import os
import sys

PLAIN = {
    "−": "-",
    "–": "-",
    "→": "->",
    "×": "x",
    "±": "+-",
    "…": "...",
    "µ": "u",
    "≤": "<=",
    "≥": ">=",
    "─": "-",
    "━": "-",
}
"""What stands for a character that cannot be shown; others are shown by their number."""
HANDLER = "limbeck.plain"


def fit_output() -> None:
    """Let stdout and stderr show in plainer characters what their encoding lacks."""
    codecs.register_error(HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=HANDLER)


def no_more_output() -> None:
    """Send what is still to be printed nowhere: its reader has gone."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end
