"""Rows as one table, from any source.

python -m hbo.analysis.results contraction            # runs/contraction -> ablations/contraction.csv; means
python -m hbo.analysis.results runs/default           # mean, standard deviation and n
python -m hbo.analysis.results wandb:ENTITY/PROJECT --study contraction
python -m hbo.analysis.results contraction --restore runs  # ablations/contraction.csv -> runs/contraction
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from hbo import files
from hbo.analysis import frozen
from hbo.analysis.arms import by_recipe
from hbo.analysis.csv_rows import read_csv, to_csv
from hbo.analysis.numbers import mean, order, plain
from hbo.analysis.restore import restore
from hbo.analysis.sources import CURVES, is_place, near
from hbo.analysis.sources import read as _read
from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.runs import identity, naming, rows
from hbo.tasks import COLUMNS, MORE
from hbo.words import Parser

METRICS = (*COLUMNS, *MORE, "seconds")
PLACES = {"out", "data_dir"}  # paths of a run and its data on a machine; not part of its identity
FIRST = ("study", "key", "state")


def load(source: str | Path, *studies: str) -> pd.DataFrame:
    """One row per run, including unfinished and failed ones (column `state`); the
    same columns for every source.

    Args:
        source: a folder of runs, of one study or of all; a CSV file or a folder of them; or
            wandb:ENTITY/PROJECT.
        studies: only these, by name; or other folders of rows, such as runs/contraction. Default: all.

    Raises:
        UserError: no such source, or no rows of one of those studies in it.
    """
    found = [row for row, _ in _read(str(source), studies)]
    there = {row["study"] for row in found}
    lacking = [name for name in studies if not is_place(name) and name not in there]
    if lacking or not found:
        of = f" of {', '.join(lacking)}{near(source, lacking)}" if lacking else ""
        raise UserError(f"{source}: contains no rows{of}")
    return frame(found)


def curves(source: str | Path, *studies: str) -> pd.DataFrame:
    """Learning curves: one line per epoch of a run, with study and key. None if the source has only rows."""
    lines = [
        {"study": row["study"], "key": row["key"], **point}
        for row, curve in _read(str(source), studies)
        for point in curve
    ]
    return pd.DataFrame(lines, columns=None if lines else pd.Index(["study", "key"]))


def frame(found: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table: study, key and state, then the fields, then results by name.

    A field newer than a row gets its default; a row that failed before it had fields has none.
    """
    asked = [f.name for f in fields(Run) if f.name not in {*PLACES, *FIRST}]
    floats = {f.name for f in fields(Run) if f.type in (float, float | None)}
    lines = []
    for row in found:
        usual = {name: getattr(Run, name) for name in asked} if "git" in row else {}
        line = usual | {name: value for name, value in row.items() if name not in {*PLACES, "folder"}}
        if folder := row.get("folder") or naming.last_name(str(row.get("data_dir") or "")):
            line["folder"] = folder  # only its name: the path does not change the images
        if row.get("net") is not None:  # else it failed before it had fields
            line["identity"] = identity.of_row(row)
        lines.append({n: float(v) if n in floats and isinstance(v, int) else v for n, v in line.items()})
    rest = sorted({name for line in lines for name in line} - {*asked, *FIRST})
    table = pd.DataFrame(lines, columns=pd.Index([*FIRST, *asked, *rest]))
    differ = identity.varying([line["identity"] for line in lines if "identity" in line])
    by = ["study", "net", *(name for name in differ if name in table and name != "net"), "seed", "key"]
    return table.sort_values(by, key=lambda column: column.map(order), kind="stable", ignore_index=True)


# ------------------------------------------------------------ means


def identities(table: pd.DataFrame) -> list[identity.Identity]:
    """The identity of each row, from its fields in the table, for naming its arm."""
    return [identity.arm_of(row) for row in table.to_dict("records")]


def varying(table: pd.DataFrame) -> list[str]:
    """The fields (except the seed) and contents of folders and files in which the runs differ."""
    return identity.varying(identities(table))


def arms(table: pd.DataFrame) -> list[tuple[identity.Identity, pd.DataFrame]]:
    """Runs that differ only in the seed, with their shared identity; a run in two studies counts once.

    Raises:
        UserError: as `check_seeds`.
    """
    table = table.drop_duplicates("key")
    every = identities(table)
    places: dict[str, list[int]] = {}
    for i, one in enumerate(every):
        places.setdefault(identity.group(one), []).append(i)
    return [(every[where[0]], check_seeds(table.iloc[where])) for where in places.values()]


def check_seeds(arm: Any) -> Any:
    """The rows of an arm, one per seed.

    Raises:
        UserError: two rows have the same seed; the error names their keys.
    """
    twice = arm[arm["seed"].duplicated(keep=False)]
    if len(twice):
        first, second, *_ = twice[twice["seed"] == twice["seed"].iloc[0]]["key"]
        raise UserError(
            f"keys {first} and {second}: the same run with the same seed, {twice['seed'].iloc[0]}, has two"
            " keys; one of the rows was edited or damaged: remove it"
        )
    return arm


def finished(table: pd.DataFrame) -> Any:
    """The finished rows; whole numbers stay integers even if a failed run has none.

    Raises:
        UserError: none is finished.
    """
    done: Any = table[table["state"] == "done"]
    if done.empty:
        states = list(map(str, table["state"].unique()))
        resumed = "; the same hbo.fit command resumes one" * ("interrupted" in states)
        raise UserError(f"none of the {len(table)} runs is finished: {', '.join(states)}{resumed}")
    kinds = dict(done.dtypes)
    whole = [f.name for f in fields(Run) if f.type is int and f.name in kinds and kinds[f.name].kind == "f"]
    whole = [name for name in whole if (done[name] % 1 == 0).all()]
    return done.astype(dict.fromkeys(whole, int)) if whole else done


def numbered(table: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """The rows; finished ones without a finite metric get a state of their own, and a warning names each.

    Args:
        table: from `load`.
        metric: a column; None: the main metric of a row's task.
    """
    states = []
    for row in table.to_dict("records"):
        name = metric or rows.main_metric(row)
        value = row.get(name)
        lost = (
            row["state"] == "done"
            and name in table
            and not (isinstance(value, (int, float)) and math.isfinite(value))
        )
        if lost:
            rows.pass_over(
                f"{row['study']}, {row['key']}: its {name} is {plain(value)}, not a number; skipped"
            )
        states.append(f"without {COLUMNS.get(name, name)}" if lost else row["state"])
    return table.assign(state=states)


def not_counted(table: pd.DataFrame) -> list[str]:
    """A note on unfinished runs: how many in each state, and their keys."""
    lines = []
    for state, group in table[table["state"] != "done"].groupby("state", sort=False):
        keys = ", ".join(map(str, group["key"][:5])) + f" and {len(group) - 5} more" * (len(group) > 5)
        lines.append(f"{len(group)} {state} ({keys})")
    return [f"Not in the table: {', '.join(lines)}."] if lines else []


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean, sample standard deviation and n of each metric over the seeds of the finished
    runs, in percent and seconds.
    """
    done = finished(numbered(table))
    groups = arms(done)
    called = dict(zip(done["key"], naming.data_names(done.to_dict("records")), strict=True))
    ones = [one for one, _ in groups]
    by = by_recipe(identity.varying(ones), ones) or ["net"]
    by = list(dict.fromkeys("data" if name == "images" else name for name in by))
    lines = []
    for one, group in groups:
        line = {identity.EXTRAS.get(name, name): identity.value(one, name) for name in by}
        if "data" in line:
            line["data"] = called[group["key"].iloc[0]]
        line["n"] = len(group)
        for name in METRICS:
            if name in group and group[name].notna().any():
                line[name] = mean(group[name], 1 if name == "seconds" else 100)
        lines.append(line)
    # Missing numbers are None, so that the others do not become floats.
    return pd.DataFrame(lines, dtype=object)


def markdown(table: pd.DataFrame) -> str:
    """The table as Markdown, without a further package."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(object).values.tolist()]
    return "\n".join(f"| {' | '.join(map(plain, line))} |" for line in lines)


# ------------------------------------------------------------ the command line


def save(table: pd.DataFrame, points: pd.DataFrame, path: Path) -> int:
    """Write NAME.csv and NAME_curves.csv, and keep existing rows that are not in the
    table. Returns their number.

    Raises:
        UserError: the existing file is not a table of runs.
    """
    kept = 0
    for new, where in ((table, path), (points, path.with_name(f"{path.stem}{CURVES}.csv"))):
        if where.exists():
            keys = set(new["key"]) if len(new) else set()
            there = read_csv(where)
            if any(line.get("key") is None for line in there):
                raise UserError(f"{where}: has lines without a key, which are not runs; move it away")
            before = [line for line in there if line["key"] not in keys]
            kept = max(kept, len({line["key"] for line in before}))
            lines = [*before, *new.astype(object).where(new.notna(), None).to_dict("records")]
            new = frame(lines) if where == path else pd.DataFrame(lines)
        if len(new):
            where.parent.mkdir(parents=True, exist_ok=True)
            files.write_atomically(where, to_csv(new))
    return kept


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        prog="python -m hbo.analysis.results",
        description="Rows as one table: mean ± standard deviation over the seeds. For a study's name, also"
        " write TO/STUDY.csv.",
    )
    parser.add_argument(
        "source", help="A study's name, a folder of runs, a CSV file, or wandb:ENTITY/PROJECT."
    )
    parser.add_argument(
        "--study", action="append", default=[], help="Only this study of the source; can be repeated."
    )
    parser.add_argument("--runs", help="Folder (or other source) of a study given by name. [runs]")
    parser.add_argument("--to", help="Folder for the CSV of a study given by name. [ablations]")
    parser.add_argument("--csv", action="store_true", help="Print the rows as CSV instead.")
    parser.add_argument(
        "--restore",
        metavar="OUT",
        help="Instead, write a study's finished rows from --runs [ablations] into OUT/STUDY, where a sweep"
        " counts them as done.",
    )
    args = parser.parse_args(argv)
    with one_line():
        by_name = not is_place(args.source)
        if args.restore:
            if not by_name or args.study or args.to or args.csv:
                raise UserError(
                    "--restore OUT: needs a study's name, and takes no other flag than --runs SOURCE"
                )
            new, there = restore(args.runs or "ablations", args.source, files.expanded(args.restore))
            print(f"{args.restore}/{args.source}: {new} rows written, {there} existed")
            return
        if by_name and args.study:
            raise UserError(
                f"--study {args.study[0]}: selects from a folder, CSV file or W&B project; {args.source} is a"
                " study's name"
            )
        if not by_name and (args.runs or args.to):
            raise UserError(
                f"--runs, --to: need a study's name; {args.source} is a source of rows, which are only"
                " printed; give the name, with --runs FOLDER"
            )
        source, studies = (args.runs or "runs", [args.source]) if by_name else (args.source, args.study)
        table = load(source, *studies)
        if by_name:
            path = Path(args.to or "ablations") / f"{args.source}.csv"
            plan = frozen.copy(source, args.source, path)
            kept = save(table, curves(source, *studies), path)
            states = ", ".join(f"{n} {state}" for state, n in table["state"].value_counts().items())
            print(
                f"{path}: {states}" + f"; {kept} existing rows kept" * bool(kept) + f"; {plan}" * bool(plan),
                end="\n\n",
                file=sys.stderr if args.csv else None,  # standard output has only the CSV
            )
        print(
            to_csv(table).rstrip()
            if args.csv
            else "\n\n".join([markdown(summary(table)), *not_counted(numbered(table))])
        )


if __name__ == "__main__":
    main()
