"""Train finished rows again and compare the results bit for bit.

    python -m hbo.analysis.reproduce pairing              # ablations/pairing.csv, the first seed of each arm
    python -m hbo.analysis.reproduce pairing --seed 7 --arms 3
    python -m hbo.analysis.reproduce table6_cifar10 --key KEY --data_dir DIR

`hbo.fit` trains each run into OUT/STUDY, with the row's number of threads; the same command resumes. It
compares the losses and metrics of every epoch, and which validation images were classified correctly. Flags
of `hbo.fit` that are not in a run's key, such as --data_dir and --workers, are passed on.
"""

import base64
import json
import sys
from dataclasses import fields
from typing import Any

from hbo.runs import signals

if __name__ == "__main__":
    signals.listen()  # before the imports, which take seconds

import numpy as np

from hbo import config, files, fit, flags
from hbo.analysis import arms, commands, sources
from hbo.config import Run
from hbo.errors import UserError, one_line
from hbo.runs import identity, rows
from hbo.text import counted

OUT = "reproduced"  # not runs/, whose finished rows would be reused
# If one of these differs, the last bits may differ.
MAY_DIFFER = ("machine", "instructions", "device", "threads", "versions", "git")
MEASURED = ("train/", "val/")  # a curve's columns of results; the others are times and rates


def main(argv: list[str] | None = None) -> None:
    """The command line. Exit status: 0 all the same bits, 1 some differ, 2 wrong flag or data."""
    parser = flags.make_parser(
        "hbo.analysis.reproduce", "Train a study's finished rows again and compare every bit of the results."
    )
    parser.add_argument("name", metavar="STUDY", help="Name of the study.")
    parser.add_argument(
        "--source", help="Rows: a folder of runs, a CSV file or a folder of them. [ablations]"
    )
    parser.add_argument("--key", nargs="+", metavar="KEY", help="Keys of the rows. [one row per arm]")
    parser.add_argument("--arms", type=int, metavar="N", help="Only the first N arms. [all]")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    with one_line(), files.one_look():
        given = flags.given(parser, sys.argv[1:] if argv is None else argv)
        own = {name: given.pop(name) for name in ("name", "source", "key", "arms", "json") if name in given}
        seed = given.pop("seed", None)
        if wrong := [name for name in given if name not in Run.NOT_IN_KEY or name in ("study", "force")]:
            raise UserError(f"{', '.join(wrong)}: comes from the row; leave it out")
        if "key" in own and (seed is not None or "arms" in own):
            raise UserError("--key: selects the rows; leave out --seed and --arms")
        if own.get("arms", 1) < 1:
            raise UserError(f"arms={own['arms']}: must be at least 1")
        source = own.get("source") or "ablations"
        found: dict[str, Any] = {}
        for row, curve in sources.read(source, (own["name"],)):
            found.setdefault(row["key"], (row, curve))
        chosen = choose([row for row, _ in found.values()], own.get("key"), seed, own.get("arms"))
        compared = []
        for label, row in chosen:
            compared.append({"arm": label} | again(row, found[row["key"]][1], given))
            if not own.get("json"):
                print(line(compared[-1]), flush=True)
    if own.get("json"):
        print(json.dumps(compared, indent=1))
    raise SystemExit(any(not one["same"] for one in compared))


def choose(
    every: list[dict[str, Any]], keys: list[str] | None, seed: int | None, most: int | None
) -> list[tuple[str, dict[str, Any]]]:
    """The rows to train again, each with its arm's name.

    Args:
        every: rows of a study.
        keys: of the rows; None: one row per arm, that of the seed.
        seed: None: each arm's first.
        most: number of arms, the first ones; None: all.

    Raises:
        UserError: no finished row of that key or seed.
    """
    done = [row for row in every if row["state"] == "done"]
    named = dict(
        zip([row["key"] for row in done], arms.names([identity.arm_of(row) for row in done]), strict=True)
    )
    if keys:
        if unknown := [key for key in keys if key not in named]:
            raise UserError(f"key={' '.join(unknown)}: no finished row has this key")
        return [(named[row["key"]], row) for row in done if row["key"] in keys]
    first: dict[str, dict[str, Any]] = {}
    for row in sorted(done, key=lambda row: int(row["seed"])):
        if seed is None or int(row["seed"]) == seed:
            first.setdefault(named[row["key"]], row)
    if not first:
        there = ", ".join(map(str, sorted({int(row["seed"]) for row in done})))
        raise UserError(f"seed={seed}: no finished row has this seed; there are {there or 'none'}")
    return list(first.items())[:most]


def again(row: dict[str, Any], curve: list[dict[str, Any]], given: dict[str, Any]) -> dict[str, Any]:
    """Train a row's run and compare.

    Args:
        row: a finished row from any source.
        curve: its learning curve, empty if there is none.
        given: fields that are not in the key, such as the folder of images.

    Returns:
        same; metric, then and now; epochs compared, the first that differs and by how much; images classified
        differently, out of how many; machine, versions and code, then and now.

    Raises:
        UserError: the run is not the row's (other images or weights), or OUT contains the row itself.
    """
    run = run_of(row, given)
    if (own := config.key_of(run.identity())) != row["key"]:
        differ = identity.varying([identity.of_row(row), run.identity()]) or ["fields of another release"]
        raise UserError(f"{row['key']}: not the same run here (key {own}): {', '.join(differ)} differ")
    new = fit.fit(run)
    if new.get("started") == row.get("started"):
        raise UserError(f"out={run.out}: contains this very row; name another folder, such as --out {OUT}")
    return {"key": row["key"], "seed": int(row["seed"])} | compare(
        (row, curve), next(iter(sources.read(str(rows.folder(run)), ())))
    )


def run_of(row: dict[str, Any], given: dict[str, Any]) -> Run:
    """The run of a row, with these fields in place of its own."""
    names = [f.name for f in fields(Run) if f.name not in Run.NOT_IN_KEY]
    names += [*commands.ALSO, "threads", "download", "study", "eval_every"]
    own = {name: identity.typed(name, row[name]) for name in names if name in row}
    wanted = {"out": OUT, "wandb": "disabled"} | own | given
    return config.resolve_saved(**{name: value for name, value in wanted.items() if value is not None})


def compare(then: tuple[dict[str, Any], Any], now: tuple[dict[str, Any], Any]) -> dict[str, Any]:
    """Two trainings of one run, each a row and its curve."""
    (row, curve), (new, points) = then, now
    metric = rows.main_metric(row)
    old, own = _values(curve), _values(points)
    shared = sorted(old.keys() & own.keys())
    differ = [place for place in shared if old[place] != own[place]]
    epochs = [{epoch for epoch, _ in values} for values in (old, own)]
    missing = bool(old) and epochs[0] != epochs[1]
    wrong, images = _judged_otherwise(row.get("correct"), new.get("correct"), new.get("val_images"))
    about = {
        "metric": metric,
        "then": float(row[metric]),
        "now": float(new[metric]),
        "epochs": len({epoch for epoch, _ in shared}),
        "first_epoch_off": differ[0][0] if differ else None,
        "first_off": {name: own[e, name] - old[e, name] for e, name in differ if e == differ[0][0]},
        "images_off": wrong,
        "images": images,
        "same": not (differ or missing or wrong) and float(row[metric]) == float(new[metric]),
    }
    return about | {name: [row.get(name), new.get(name)] for name in MAY_DIFFER}


def _values(curve: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    """(epoch, column) -> value of a curve's losses and metrics."""
    return {
        (int(point["epoch"]), name): float(value)
        for point in curve
        for name, value in point.items()
        if name.startswith(MEASURED) and value is not None and value == value
    }


def _judged_otherwise(old: Any, new: Any, images: Any) -> tuple[int | None, int | None]:
    """Images that one training alone classified correctly, out of how many; None for other tasks."""
    if not isinstance(old, str) or not isinstance(new, str):
        return None, None
    bits = [np.frombuffer(base64.b64decode(one), np.uint8) for one in (old, new)]
    return int(np.unpackbits(bits[0] ^ bits[1]).sum()), int(images)


def line(one: dict[str, Any]) -> str:
    """The result for a row, as a line of text."""
    who = f"{one['key']} {one['arm']}, seed {one['seed']}"
    of = [counted(one["epochs"], "epoch")] * bool(one["epochs"])
    of += [f"{one['images']} images"] * bool(one["images"])
    if one["same"]:
        return f"{who}: the same bits ({', '.join([*of, one['metric']])})"
    said = [f"{one['metric']} {one['now']:.6g}, {one['then']:.6g} in the row"]
    if one["first_epoch_off"] is not None:
        off = ", ".join(f"{name} by {value:+.1e}" for name, value in one["first_off"].items())
        said.append(f"differs from epoch {one['first_epoch_off']} on ({off})")
    if one["images_off"] is not None:
        said.append(f"{one['images_off']} of {one['images']} images classified differently")
    other = [
        f"{name} {'not recorded' if then is None else then}, here {now}"
        for name, (then, now) in ((name, one[name]) for name in MAY_DIFFER)
        if str(then) != str(now)
    ]
    said += other or ["same machine, versions and code"]
    return f"{who}: not the same: {'; '.join(said)}"


if __name__ == "__main__":
    main()
