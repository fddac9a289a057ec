"""The command line: flags, their choices and help derive from the fields of `Run`.

parse(["--k", "2"]) -> Run        defaults <- recipe of the data set <- --config FILE <- flags
"""

import re
import sys
from dataclasses import asdict, fields
from typing import Any, Literal

from hbo.config import Run, did_you_mean, resolve, to_yaml
from hbo.errors import UserError, one_line


def make_parser(prog: str, about: str):
    """The flags, their choices and help, from the fields of `Run`."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(prog=f"python -m {prog}", description=about, exit_on_error=False, print_config=None)
    parser.add_argument(
        "--config",
        action=jsonargparse.ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]
        help="Read fields from a YAML or JSON file, or JSON text: flat, one key a field. Flags after it win.",
    )
    parser.add_argument("--print_config", action="store_true", help="Print the resolved fields as YAML and stop.")
    parser.add_class_arguments(Run)
    parser.set_defaults(asdict(resolve()))  # what the help shows is what the default run takes
    return parser


def given(parser: Any, argv: list[str]) -> dict[str, Any]:
    """The fields that the command line, or a file of it, names; not the defaults.

    Raises:
        UserError: a flag or key that does not exist, or a value of the wrong type, in one line.
    """
    import jsonargparse

    argv = [arg for arg in argv if not arg.startswith("--_wandb")]  # what a requeued W&B run brings along
    switches = {f"--{f.name}" for f in fields(Run) if f.type is bool}
    # `--force` is `--force=true`, as with any other program.
    argv = [
        f"{arg}=true" if arg in switches and "".join(argv[i + 1 : i + 2])[:2] in ("", "--") else arg
        for i, arg in enumerate(argv)
    ]
    try:
        namespace = parser.parse_args(argv, defaults=False)
    except UnicodeDecodeError:
        raise UserError("config: not a text file") from None
    except jsonargparse.ArgumentError as error:
        raise UserError(_plain(str(error), argv)) from None
    values = {k: v for k, v in vars(namespace.clone(with_meta=False)).items() if k != "config" and not k.startswith("_wandb")}
    return values


def _plain(message: str, argv: list[str]) -> str:
    """Jsonargparse's message in one line of the user's words."""
    names = [f.name for f in fields(Run)]
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        flag = found[1].split("=")[0]
        return f"{flag}: no such flag{did_you_mean(flag, [f'--{n}' for n in names])}"
    if found := re.match(r"Option '(\S+)' is not accepted", message):
        return f"{found[1]}: no such field{did_you_mean(found[1], names)}"
    if found := re.match(r'(?s)Parser key "(\w+)":\s+(.*)', message):
        name, rest = found[1], " ".join(found[2].split())
        field = Run.__dataclass_fields__.get(name)
        value = (re.search(r"(?:Given value|Got value): (.*)", rest) or [None, None])[1]
        if field is not None and value is not None:
            choices = getattr(field.type, "__args__", ())
            literal = getattr(field.type, "__origin__", None) is Literal
            what = (
                f"choose from {', '.join(map(str, choices))}"
                if literal
                else f"must be {_KINDS.get(str(field.type), getattr(field.type, '__name__', str(field.type)))}"
            )
            return f"{name}={value}: {what}{did_you_mean(value, [str(c) for c in choices]) if literal else ''}"
        return f"--{name}: {rest}"
    return " ".join(message.split())


_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "int | None": "a whole number, or null",
    "float | None": "a number, or null",
    "str | None": "text, or null",
}


def parse(
    argv: list[str] | None = None, prog: str = "hbo.fit", about: str = "Train one network on one data set and leave one row."
) -> Run:
    """The run that a command line asks for; prints and exits for --help and --print_config.

    Raises:
        SystemExit: 2 with one line on standard error, for a flag or value that is wrong.
    """
    with one_line():
        values = given(make_parser(prog, about), sys.argv[1:] if argv is None else argv)
        show = values.pop("print_config", False)
        run = resolve(**values)
    if show:
        print(to_yaml(run), end="")
        raise SystemExit(0)
    return run
