"""Write every table and figure of the paper, and of each study with rows, into papers/hbonet/out/.

python -m hbo.analysis.paper --source ablations --to papers/hbonet/out

A study that fails does not stop the others: it is named with its reason, and the exit status is 1.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from hbo.analysis import claims, diagrams, figures, published, report, results, study, tables
from hbo.analysis.printed import SUFFIXES, Table, write
from hbo.analysis.study import ABLATIONS, SWEEPS
from hbo.config import resolve
from hbo.errors import UserError, flat, one_line
from hbo.files import write_atomically
from hbo.words import Parser


@dataclass
class Built:
    """Files written, and failures: the name of a piece or a study -> reason."""

    written: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def piece(self, name: str, make: Callable[[], list[Path]]) -> None:
        """Write a piece; a failure is recorded, and the others continue."""
        try:
            self.written += make()
        except UserError as error:
            self.failed[name] = str(error)
        except Exception as error:  # an error in one study's rows must not stop the others
            self.failed[name] = f"{type(error).__name__}: {error}"


def build(source: str | Path, to: Path) -> Built:
    """Write all tables and figures; a study whose rows cannot be combined is left out of the tables.

    Raises:
        UserError: as `results.load`.
    """
    built = Built()
    rows: Any = results.load(source)
    to.mkdir(parents=True, exist_ok=True)
    for name in _studies(rows):
        built.piece(name, lambda name=name: _checked(rows[rows["study"] == name]))
    rows = rows[~rows["study"].isin(list(built.failed))]
    names = [name for name in _studies(rows) if (SWEEPS / f"{name}.yaml").exists()]
    tasks: dict[str, Callable[[], list[Path]]] = {
        f"table {n}": lambda n=n: _table(tables.paper_table(n, rows), to / f"table{n}")
        for n in published.TITLES
    }
    tasks["claims"] = lambda: _claims(rows, to)
    tasks |= {
        name: lambda name=name, draw=draw: figures.save(draw(), to / name)
        for name, draw in _drawn(rows).items()
    }
    tasks |= {name: lambda name=name: _study(name, source, to) for name in names}
    for name, make in tqdm(tasks.items(), unit="piece"):
        built.piece(name, make)
    return built


def _checked(rows: Any) -> list[Path]:
    """Raise if no means can be computed from a study's rows."""
    results.arms(results.finished(rows))
    return []


def _claims(rows: Any, to: Path) -> list[Path]:
    write_atomically(to / "disagreements.txt", claims.disagreements() + "\n")
    return [*_table(claims.table(claims.check(rows)), to / "claims"), to / "disagreements.txt"]


def _drawn(rows: Any) -> dict[str, Callable[[], Any]]:
    """The paper's figures, and its networks' costs by stage."""
    v2 = {"MobileNetV2": resolve(data="imagenet", net="mobilenetv2", match_macs=44.1)}
    return {
        "figure1": lambda: figures.figure1(rows),
        "figure2": diagrams.figure2,
        "figure3": diagrams.figure3,
        "figure4": diagrams.figure4,
        "stages": lambda: figures.stage_costs(_table6()),
        "maps": lambda: figures.resolution_costs({**_table6(), **v2}),
    }


def _study(name: str, source: str | Path, to: Path) -> list[Path]:
    """A study's tables, figures and page."""
    found, written = study.settings(name, source=source), []
    for it in found:
        stem = name + it.stem
        written += _table(it.table(), to / stem) + _table(it.differences(), to / f"{stem}_differences")
        for what, figure in figures.of(it).items():
            written += figures.save(figure, to / f"{stem}_{what}")
    write_atomically(to / f"{name}.html", report.page(*found))
    return [*written, to / f"{name}.html"]


def _studies(rows: pd.DataFrame) -> list[str]:
    """Studies with finished rows."""
    return [str(name) for name in dict.fromkeys(rows.loc[rows["state"] == "done", "study"])]


def _table6() -> dict:
    return {f"HBONet k={k}": resolve(data="imagenet", width=0.25, divisor=8, k=k) for k in (1, 2, 3)}


def _table(table: Table, stem: Path) -> list[Path]:
    return [write(table, stem, kind) for kind in SUFFIXES]


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0; 1 if a study or a piece failed, which is named;
    2 for a wrong flag or source.
    """
    parser = Parser(prog="python -m hbo.analysis.paper", description="Every table and figure of the paper.")
    parser.add_argument(
        "--source", default=ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]"
    )
    parser.add_argument(
        "--to", type=Path, default=published.PAPER / "out", help="Folder. [papers/hbonet/out]"
    )
    args = parser.parse_args(argv)
    with one_line():
        if not published.PAPER.is_dir():
            raise UserError(
                "the paper's figures and claims are in HBO's checkout, so install with `pip install -e .`"
            )
        built = build(args.source, args.to)
    print(f"{args.to}: {len(built.written)} files, {len({path.stem for path in built.written})} pieces")
    for name, why in built.failed.items():
        print(f"error: {name}: {flat(why)}", file=sys.stderr)
    raise SystemExit(1 if built.failed else 0)


if __name__ == "__main__":
    main()
