"""Rows as one table.

python -m hbo.analysis.results runs/default           # mean, deviation and n over the seeds
python -m hbo.analysis.results runs/default --csv     # the rows, but for where they and their data lay
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.rows import read

METRICS = ("top1", "top5", "balanced_accuracy", "f1", "seconds")


def load(source: str | Path) -> pd.DataFrame:
    """A row a run, unfinished and failed ones included (column `state`), of a study's folder or of all studies.

    Raises:
        UserError: no rows there.
    """
    root = Path(source)
    paths = [p for p in sorted(root.rglob("row.json")) if "replaced" not in p.parts]
    if not paths:
        raise UserError(f"{source}: holds no row.json; name a folder of runs, such as runs/default")
    return pd.DataFrame([(read(path.parent) or {}) | {"study": path.parent.parent.name} for path in paths])


def varying(rows: pd.DataFrame) -> list[str]:
    """The fields, but for the seed, in which the runs differ."""
    left_out = Run.NOT_IN_KEY - {"devices", "num_nodes"} | {"seed"}
    names = [f.name for f in fields(Run) if f.name not in left_out and f.name in rows]
    return [name for name in names if rows[name].nunique(dropna=False) > 1]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, sample deviation and n of each metric over the seeds of the finished runs, in percent and seconds."""
    done: Any = rows[rows["state"] == "done"]
    if done.empty:
        raise UserError(f"none of the {len(rows)} runs is finished: {', '.join(rows['state'].unique())}")
    by = varying(done) or ["net"]
    table = []
    for values, group in done.groupby(by, dropna=False, sort=False):
        line = dict(zip(by, values, strict=True)) | {"n": len(group)}
        for name in METRICS:
            if name in group and group[name].notna().all():
                scale = 1 if name == "seconds" else 100
                line[name] = (
                    f"{scale * group[name].mean():.1f} ± {scale * group[name].std():.1f}"
                    if len(group) > 1
                    else f"{scale * group[name].iloc[0]:.1f}"
                )
        table.append(line)
    return pd.DataFrame(table)


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, without a package for it."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(object).values.tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m hbo.analysis.results", description="Rows as one table: mean ± deviation over the seeds."
    )
    parser.add_argument("source", help="A study's folder, or the folder of all studies.")
    parser.add_argument("--csv", action="store_true", help="Print the rows as CSV, but for where they and their data lay.")
    args = parser.parse_args(argv)
    with one_line():
        rows = load(args.source)
        text = rows.drop(columns=["out", "data_dir"]).to_csv(index=False).rstrip() if args.csv else markdown(summary(rows))
    print(text)


if __name__ == "__main__":
    main()
