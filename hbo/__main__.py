"""python -m hbo: list the commands, each with the first paragraph of its docstring; imports none of them."""

import ast
import difflib
import re
import sys
from pathlib import Path

from hbo import __version__
from hbo.words import Parser

PACKAGE = Path(__file__).parent
GUARD = 'if __name__ == "__main__":'


def commands() -> dict[str, str]:
    """Name of a module that is a command -> what it does, in a line."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        package = path.stem == "__main__"
        if path == Path(__file__) or not (package or GUARD in text):
            continue
        module = path.parent if package else path.with_suffix("")
        name = ".".join(module.relative_to(PACKAGE.parent).parts)
        found[name] = summary(text) or summary((module / "__init__.py").read_text(encoding="utf-8"))
    return found


def summary(source: str) -> str:
    """The first paragraph of a module's docstring as one line, without the command that it may start with;
    empty if it is only that command.
    """
    line = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.sub(r"^`?python -m [^:`]*`?[:.] ?", "", line).strip()


def main(argv: list[str] | None = None) -> None:
    """Print the commands by folder, the everyday ones first."""
    found = commands()
    words = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="python -m hbo", description="List the commands.")
    parser.add_argument("--version", action="store_true", help="Print the version and the commit.")
    if words and not words[0].startswith("-"):
        short = {name.rpartition(".")[2]: name for name in found}
        asked = words[0].rpartition(".")[2]
        name = short.get(asked) or short.get(next(iter(difflib.get_close_matches(asked, short, n=1)), ""))
        parser.error(
            f"{words[0]}: it is python -m {name}"
            if name
            else f"{words[0]}: no such command; python -m hbo lists them"
        )
    if parser.parse_args(words).version:
        from hbo.runs.code import git_commit

        print(f"hbo {__version__}" + f", commit {git_commit()}" * bool(git_commit()))
        return
    width = max(map(len, found))
    for name in sorted(found, key=lambda name: (name.count("."), name)):
        print(f"python -m {name:<{width}}  {found[name][:1].upper()}{found[name][1:]}")
    print("\nEach has --help. `python -m hbo.fit` trains the default network on the default data set.")


if __name__ == "__main__":
    main()
