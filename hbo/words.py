"""The words that people type: what was meant by one that does not exist, and a parser that says it in one line."""

import argparse
import difflib
import re
import sys
from typing import NoReturn

from hbo.errors import flat


def did_you_mean(word: str, known: list[str]) -> str:
    """`; did you mean NEAREST?`, or nothing."""
    near = difflib.get_close_matches(str(word)[:100], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def unknown_flag(arg: str, known: list[str]) -> str:
    """What to say of a flag that a command does not have."""
    flag = arg.split("=")[0]
    return f"{flag}: no such flag{did_you_mean(flag, known)}"


class Parser(argparse.ArgumentParser):
    """argparse's, which answers what is wrong in one line and with exit status 2, as all commands here do."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            message = unknown_flag(message.split(": ", 1)[1].split()[0], list(self._option_string_actions))
        elif found := re.match(r"argument ([^:]+): (.*)", message):  # its own words for a value
            message = f"{found[1]}: {found[2]}"
        print(f"error: {flat(message)}", file=sys.stderr)
        raise SystemExit(2)
