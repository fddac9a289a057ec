"""Every table and figure of the paper, and of each study that has rows, into papers/hbonet/out/.

python -m hbo.analysis.paper --source ablations --to papers/hbonet/out
"""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hbo.analysis import claims, diagrams, figures, published, report, results, study, tables
from hbo.analysis.study import ABLATIONS, SWEEPS
from hbo.config import resolve
from hbo.errors import one_line
from hbo.files import write_atomically
from hbo.words import Parser


def build(source: str | Path, to: Path) -> list[Path]:
    """Write them all; the files, in order.

    Raises:
        UserError: as `results.load`.
    """
    rows = results.load(source)
    to.mkdir(parents=True, exist_ok=True)
    drawn = {
        "figure1": lambda: figures.figure1(rows),
        "figure2": diagrams.figure2,
        "figure3": diagrams.figure3,
        "figure4": diagrams.figure4,
        "stages": lambda: figures.stage_costs(_table6()),
        "maps": lambda: figures.resolution_costs(
            {**_table6(), "MobileNetV2": resolve(data="imagenet", net="mobilenetv2", match_macs=44.1)}
        ),
    }
    names = [name for name in _studies(rows) if (SWEEPS / f"{name}.yaml").exists()]
    written: list[Path] = []
    with tqdm(total=len(published.TITLES) + 1 + len(drawn) + len(names), unit="piece") as bar:
        for number in published.TITLES:
            written += _table(tables.paper_table(number, rows), to / f"table{number}")
            bar.update()
        verdicts = claims.check(rows)
        written += _table(claims.table(verdicts), to / "claims")
        written.append(to / "disagreements.txt")
        write_atomically(written[-1], claims.disagreements() + "\n")
        bar.update()
        for name, draw in drawn.items():
            written += figures.save(draw(), to / name)
            bar.update()
        for name in names:
            found = study.settings(name, source=source)
            for it in found:
                stem = name + it.stem
                written += _table(it.table(), to / stem) + _table(it.differences(), to / f"{stem}_differences")
                for what, figure in figures.of(it).items():
                    written += figures.save(figure, to / f"{stem}_{what}")
            written.append(to / f"{name}.html")
            write_atomically(written[-1], report.page(*found))
            bar.update()
    return written


def _studies(rows: pd.DataFrame) -> list[str]:
    """Studies with finished rows."""
    return [str(name) for name in dict.fromkeys(rows.loc[rows["state"] == "done", "study"])]


def _table6() -> dict:
    return {f"HBONet k={k}": resolve(data="imagenet", width=0.25, divisor=8, k=k) for k in (1, 2, 3)}


def _table(table: tables.Table, stem: Path) -> list[Path]:
    texts = {"md": table.markdown() + "\n", "tex": table.latex(), "csv": table.frame.to_csv(index=False)}
    for kind, text in texts.items():
        write_atomically(stem.with_name(f"{stem.name}.{kind}"), text)
    return [stem.with_name(f"{stem.name}.{kind}") for kind in texts]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.paper", description="Every table and figure of the paper.")
    parser.add_argument("--source", default=ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]")
    parser.add_argument("--to", type=Path, default=published.PAPER / "out", help="Folder. [papers/hbonet/out]")
    args = parser.parse_args(argv)
    with one_line():
        written = build(args.source, args.to)
    print(f"{args.to}: {len(written)} files, {len({path.stem for path in written})} pieces")


if __name__ == "__main__":
    main()
