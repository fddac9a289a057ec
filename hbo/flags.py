"""The command line: flags, their choices and help derive from the fields of `Run`.

parse(["--k", "2"]) -> Run        defaults <- recipe of the data set <- --recipe <- --config FILE <- flags
"""

import argparse
import re
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, is_dataclass
from typing import Any, get_args

from hbo import files
from hbo.config import Run, checked, resolve, to_yaml
from hbo.errors import UserError, one_line
from hbo.values import field_types, load, several, shown
from hbo.words import choice, unknown

DEFAULTS = (
    "Defaults below are those of elpv; another data set, net or recipe has others: --print_config shows them."
)
SAVED = "Without a flag below, the checkpoint's value is used."


def make_parser(prog: str, about: str, shown: Collection[str] = ()):
    """A command's parser; `given` adds the flags of `Run`'s fields where they are shown.

    Args:
        prog: the module.
        about: what it does.
        shown: the fields in the help of a command that takes the others from a checkpoint; none: all fields,
            with their defaults.
    """
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser: Any = jsonargparse.ArgumentParser(
        prog=f"python -m {prog}",
        description=f"{about} {SAVED if shown else DEFAULTS}",
        exit_on_error=False,
        print_config=None,
        allow_abbrev=False,
    )
    parser.shown = frozenset(shown)
    parser.add_argument(
        "--config",
        help="Read fields from a YAML or JSON file, or JSON text, one key per field. Later flags win.",
    )
    parser.add_argument(
        "--print_config", action="store_true", help="Print the resolved fields as YAML and stop."
    )
    return parser


def _add_fields(parser: Any) -> None:
    """The flags, their choices and help, from the fields of `Run`, if they are not there yet."""
    if "--net" in parser._option_string_actions:
        return
    seen: set[str | int] = set()
    for owner in reversed(Run.__mro__):  # a group of flags for each class that declares fields
        own = field_types(owner) if is_dataclass(owner) else {}
        if owner is not Run and own.keys() - seen:
            parser.add_class_arguments(owner, skip=seen)
            seen |= own.keys()
    parser.set_defaults(asdict(resolve()))  # the help shows the defaults of a run without flags
    kinds = field_types(Run)
    for action in parser._actions:
        if action.dest in kinds and parser.shown:
            action.default = argparse.SUPPRESS
            action.help = action.help if action.dest in parser.shown else argparse.SUPPRESS
        choices = get_args(kinds.get(action.dest))
        if any("," in str(choice) for choice in choices):
            action.metavar = f"{{{'|'.join(choices)}}}"


def given(parser: Any, argv: list[str]) -> dict[str, Any]:
    """The fields given on the command line or in its --config file, without defaults. Later ones win.

    Fields are read here, by the rules of `hbo.values`; the parser reads the command's own flags, prints the
    help and finds the words of an error. It knows the fields only then: adding them takes half a second.

    Raises:
        UserError: flags or keys that do not exist, and values of the wrong type, in one line.
    """
    found: dict[str, Any] = {}
    wrong: list[str] = []
    kinds, rest, todo = field_types(Run), [], list(argv)
    while todo:
        arg = todo.pop(0)
        flag, equals, value = arg.partition("=")
        name = flag.removeprefix("--")
        if arg.startswith("--_wandb"):  # added to a requeued W&B run
            continue
        if flag == name or (name not in kinds and name != "config"):
            rest.append(arg)
            continue
        if not equals:
            there = bool(todo) and not todo[0].startswith("--")
            if not there and kinds.get(name) is not bool:
                wrong.append(f"{flag}: needs a value")
                continue
            value = todo.pop(0) if there else "true"  # `--force` means `--force=true`
        try:
            found |= read_config(value) if name == "config" else {name: _one(name, value, parser.prog)}
        except UserError as error:
            wrong.append(str(error))
    try:
        found = _own(parser, rest) | found
    except UserError as error:
        wrong.append(str(error))
    if wrong:
        raise UserError("; also ".join(wrong))
    return found


def _own(parser: Any, words: list[str]) -> dict[str, Any]:
    """The command's own flags and words.

    Raises:
        UserError: a flag that does not exist, or a wrong value.
    """
    import jsonargparse

    try:
        if any(word == "-h" or word.startswith("--h") for word in words):
            _add_fields(parser)
        namespace = parser.parse_args(words, defaults=False)
    except jsonargparse.ArgumentError:
        _add_fields(parser)
        try:
            namespace = parser.parse_args(words, defaults=False)
        except jsonargparse.ArgumentError as error:
            raise UserError(_plain(str(error), parser)) from None
    return {k: v for k, v in vars(namespace.clone(with_meta=False)).items() if k != "config"}


def _one(name: str, value: str, prog: str) -> Any:
    """A flag's value; a training takes one, a sweep takes several."""
    try:
        return checked(name, value)
    except UserError as error:
        wanted = several(name, field_types(Run)[name], value) if prog == "python -m hbo.fit" else ""
        wanted = "" if "did you mean" in str(error) else wanted  # a decimal comma
        hint = f"; for several: python -m hbo.sweep run FILE --set {wanted}" if wanted else ""
        raise UserError(f"{error}{hint}") from None


def read_config(source: str) -> dict[str, Any]:
    """The fields of a YAML or JSON file, or of JSON text.

    Raises:
        UserError: no such file, or not a flat mapping of fields.
    """
    inline = source.lstrip().startswith("{")
    name = "" if inline else source
    try:
        text = source if inline else files.expanded(source, "config").read_text()
    except UnicodeDecodeError:
        raise UserError(f"config={name}: not a text file") from None
    except (OSError, ValueError) as error:  # a null byte in its name is a ValueError
        raise UserError(f"config={name}: {getattr(error, 'strerror', None) or error}") from None
    try:
        content = load(text)
        if not isinstance(content, dict):
            raise UserError(f"{shown(content)}: must be a mapping, one field a line, such as `k: 2`")
        return {
            n: checked(n, v) for n, v in content.items() if not str(n).startswith(("_wandb", "wandb_version"))
        }
    except UserError as error:
        raise UserError(f"{name}: {error}" if name else str(error)) from None


def _plain(message: str, parser: Any) -> str:
    """Jsonargparse's message in one plain line."""
    if found := re.match(r"(?s)unrecognized arguments: (.*)", message):
        return unknown(found[1].split(), list(parser._option_string_actions))
    if said := choice(message):
        return said
    if found := re.match(r"the following arguments are required: (.*)", message):
        return f"missing: {found[1]}; --help lists what can be given"
    if found := re.match(r'(?s)Parser key "(\w+)":\s+(.*)', message):
        return f"--{found[1]}: {' '.join(found[2].split())}"
    return " ".join(message.split())


def parse(
    argv: list[str] | None = None,
    prog: str = "hbo.fit",
    about: str = "Train one network on one data set and leave one row.",
    refused: Callable[[UserError], None] | None = None,
) -> Run:
    """The run that a command line asks for; prints and exits for --help and --print_config.

    Args:
        argv: the words; None: of this process.
        prog: the module, for the help.
        about: what it does.
        refused: called if each field is valid but their combination is not.

    Raises:
        SystemExit: 2 with one line on standard error, for a wrong flag or value.
    """
    with one_line():
        values = given(make_parser(prog, about), sys.argv[1:] if argv is None else argv)
        show = values.pop("print_config", False)
        try:
            run = resolve(**values)
        except UserError as error:
            if refused is not None:
                refused(error)
            raise
    if show:
        print(to_yaml(run), end="")
        raise SystemExit(0)
    return run
