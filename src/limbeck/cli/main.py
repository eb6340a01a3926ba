"""The `limbeck` command, and how it says what went wrong."""

from __future__ import annotations

import sys
from signal import SIGINT

import typer

from limbeck.cli.commands import app
from limbeck.cli.interrupts import Terminated, end, terminable
from limbeck.cli.terminal import fit_output, no_more_output
from limbeck.errors import LINE, RequestError, RunError, one_line

NAME = "limbeck: "
SIGPIPE = 13
"""The signal by which shells know a broken pipe; Windows has none of that name."""


def main() -> None:
    """The `limbeck` command: one line for an error.

    The status is 2 for a wrong request, 1 for a failed run, 130 after Ctrl-C, 143 after SIGTERM, and 141 where nobody
    reads standard output any more.
    """
    fit_output()
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"] or ["--help"]
    try:
        with terminable():
            status = typer.main.get_command(app).main(arguments, prog_name="limbeck", standalone_mode=False)
        sys.stdout.flush()
        if status == 128 + SIGINT:  # typer makes that of KeyboardInterrupt
            end(KeyboardInterrupt())
    except (KeyboardInterrupt, Terminated, typer.Abort) as error:
        end(error)
    except BrokenPipeError:  # who read the rows, such as `head`, has enough of them
        no_more_output()
        status = 128 + SIGPIPE
    except Exception as error:
        if debug:
            raise
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception) -> int:
    usage = getattr(error, "format_message", None)  # of click's errors, which some typers bring along as their own
    if usage is not None:
        message, status = usage(), 2
    elif isinstance(error, RequestError):
        message, status = str(error), 2
    elif isinstance(error, RunError):
        message, status = str(error), 1
    elif isinstance(error, MemoryError):
        message, status = "there is not enough memory; take a smaller model, batch or image", 1
    else:
        message, status = f"{type(error).__name__}: {error} (--debug shows where)", 1
    message = ": ".join([*getattr(error, "__notes__", ()), message])
    print(NAME + one_line(message, LINE - len(NAME)), file=sys.stderr)  # noqa: T201
    return status
