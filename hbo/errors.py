"""Errors for the user: one clear line and exit status 2, no traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

LONGEST = 1500  # characters of a message


class UserError(ValueError):
    """A mistake in what the user typed or has on disk. The message says what is wrong, the
    value, and what to type instead.
    """

    status = 2  # exit status of the command


class DataError(UserError):
    """A data set that is missing, incomplete or broken; names the path."""


class UnreadableError(DataError):
    """An image file that cannot be used as it is; names the path."""


def plain(error: Exception) -> str:
    """The message of an error, without the traceback that a loader's worker puts before it."""
    return str(error).strip().split(f"{type(error).__name__}: ")[-1]


def first_line(error: Exception) -> str:
    """Another library's error in short: its message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_picture(path: Path, flag: str) -> None:
    """Check, before the work starts, that a picture can be written to this file."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"{flag}={path}: a picture's name must end in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"{flag}={path}: there is no folder {path.parent}")


def flat(message: str) -> str:
    """A message as one line; the middle of a very long one is cut."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def leave(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: Ctrl-C while a command is importing prints a word, not a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


@contextmanager
def one_line() -> Iterator[None]:
    """Turn a `UserError` or an `OSError` into one line on standard error and an exit status."""
    try:
        yield
    except UserError as error:
        print(f"error: {flat(plain(error))}", file=sys.stderr)
        raise SystemExit(error.status) from None
    except KeyboardInterrupt as error:  # Ctrl-C, with nothing to save
        print(str(error) or "interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # a folder without write permission, a full disk, an unreachable server
        print(f"error: {flat(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
