"""Errors for the user: one clear line and exit status 2, no traceback."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 1500  # characters of a message


class UserError(ValueError):
    """What the user typed, or has on disk, cannot be obeyed: what was wrong, the value, what to type instead."""

    status = 2  # exit status of the command


class DataError(UserError):
    """A data set that is missing, incomplete or broken; names the path."""


class UnreadableError(DataError):
    """An image file that cannot be taken as it is; names the path."""


def plain(error: Exception) -> str:
    """An error's own words: a loader's worker sends its traceback along, and they follow it."""
    return str(error).strip().split(f"{type(error).__name__}: ")[-1]


def first_line(error: Exception) -> str:
    """Another library's words, in short; its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_picture(path: Path, flag: str) -> None:
    """Refuse a file that no picture can be written to, before the work that makes it."""
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"{flag}={path}: names the picture, and must end in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"{flag}={path}: there is no folder {path.parent}")


def flat(message: str) -> str:
    """A message as one line, its middle left out where it repeats thousands of characters that were typed."""
    line = " ".join(message.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


@contextmanager
def one_line() -> Iterator[None]:
    """Turn a `UserError`, or one of the operating system, into a line on standard error and its exit status."""
    try:
        yield
    except UserError as error:
        print(f"error: {flat(plain(error))}", file=sys.stderr)
        raise SystemExit(error.status) from None
    except KeyboardInterrupt:  # Ctrl-C where nothing has to be saved
        print("interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # who reads the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # a folder that cannot be written, a full disk, a server that is not there
        print(f"error: {flat(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
