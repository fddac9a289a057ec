"""Run notebooks from their scripts: NAME.py, in percent format, is the source; NAME.ipynb is the result.

python -m hbo.analysis.notebooks                                       # all, on the rows in ablations/
python -m hbo.analysis.notebooks contraction --source wandb:ENTITY/PROJECT --to out
python -m hbo.analysis.notebooks runs/contraction --to out             # on the rows in runs/
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from hbo import files
from hbo.analysis.published import PAPER
from hbo.analysis.study import ABLATIONS
from hbo.errors import UserError, one_line
from hbo.words import Parser

# A kernel warns about its own sockets, and Ctrl-C is an error to it; the error of a cell comes as a result.
QUIET: Any = {"extra_arguments": ["--IPKernelApp.log_level=50"]}


def scripts() -> list[Path]:
    """The scripts of all notebooks."""
    return sorted(path for folder in (PAPER, ABLATIONS) for path in folder.glob("*.py"))


def named(word: str, source: str | None = None) -> tuple[Path, str | None]:
    """The script for an argument, and the source of its rows: ablations/contraction.py, contraction, or
    runs/contraction.

    Raises:
        UserError: no such script; or a study without a notebook.
    """
    path = Path(word)
    if path.suffix == ".py":
        if not path.is_file():
            raise UserError(f"{word}: no such script")
        return path, source
    found = next((script for script in scripts() if script.stem == path.name), None)
    if found is None:
        there = ", ".join(script.stem for script in scripts())
        own = f"; for yours write ablations/{path.name}.py, as ablations/contraction.py" * path.is_dir()
        raise UserError(f"{word}: no notebook; there are {there}{own}")
    return found, str(path.parent) if path.is_dir() and path.parent != Path() else source


def run(script: Path, source: str | None = None, to: Path | None = None) -> Path:
    """Run a notebook in its own folder, as in Jupyter, and write it with its outputs.

    Args:
        script: in percent format, with a cell of parameters.
        source: of the rows; None: the script's own. Relative to the current folder.
        to: folder of the notebook; None: the script's.

    Raises:
        UserError: a package of the extra `notebooks` is not installed; a cell fails (the
        message says which and why).
    """
    try:
        import jupytext
        import nbformat
        import papermill
    except ImportError as error:
        raise UserError(f"{error}; pip install -e '.[notebooks]'") from None
    for name in ("papermill", "papermill.translators", "traitlets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    parameters = {}
    if source is not None:
        parameters["source"] = (
            source if source.startswith("wandb:") else str(files.expanded(source).resolve())
        )
    book: Any = jupytext.read(script)
    book.metadata.setdefault(
        "kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"}
    )
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.ipynb", Path(folder) / "after.ipynb"
        nbformat.write(book, before)
        try:
            papermill.execute_notebook(
                before, after, parameters, cwd=script.parent, progress_bar=False, **QUIET
            )
        except papermill.PapermillExecutionError as error:
            raise UserError(f"{script}, cell {error.cell_index}: {error.ename}: {error.evalue}") from None
        book = nbformat.read(after, as_version=4)
    for n, cell in enumerate(book.cells):  # values that change with every run
        cell.id = f"cell-{n}"
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
    book.metadata = {
        "jupytext": {"formats": "ipynb,py:percent"},
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    }
    path = (to or script.parent) / f"{script.stem}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.notebooks", description="Run notebooks from their scripts.")
    parser.add_argument(
        "script", nargs="*", help="Scripts, studies, or folders of a study's rows, such as runs/STUDY. [all]"
    )
    parser.add_argument(
        "--source", help="Folder of runs, CSV, folder of CSVs, or wandb:ENTITY/PROJECT; needs --to."
    )
    parser.add_argument("--to", type=Path, help="Folder of the notebooks. [next to their scripts]")
    args = parser.parse_args(argv)
    with one_line():
        from tqdm import tqdm

        chosen = [named(word, args.source) for word in args.script or map(str, scripts())]
        if not chosen:
            raise UserError(
                "no notebooks here: they are in HBO's checkout, so install with `pip install -e .`"
            )
        if any(source for _, source in chosen) and not args.to:
            asked = f"--source {args.source}" if args.source else " ".join(args.script)
            raise UserError(f"{asked}: needs --to DIR, so that the committed notebooks are not overwritten")
        for script, source in (bar := tqdm(chosen, unit="notebook")):
            bar.set_postfix_str(script.stem)
            tqdm.write(str(run(script, source, args.to)))


if __name__ == "__main__":
    main()
