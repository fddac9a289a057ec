"""A study read: its question, its arms, what they reached, how they differ, and what may be concluded.

    python -m hbo.analysis.study contraction mobilenetv2              # the same as Markdown
    study = read("contraction", "mobilenetv2", source="ablations")
    study.table(); study.differences(); print(study.verdict())

An arm is all runs that differ in nothing but the seed. Notebooks and the report call this and hold no logic.
"""

import argparse
import base64
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hbo.analysis import latency, numbers, results, stats
from hbo.analysis.grouping import base, by_setting, crossed, labels, usual_arm
from hbo.analysis.sources import is_place
from hbo.analysis.stats import SHOWN
from hbo.analysis.tables import Markdown, Table, unknown_images
from hbo.block import Block
from hbo.errors import UserError, one_line
from hbo.runs import identity, naming
from hbo.runs.rows import main_metric
from hbo.words import Parser

SWEEPS, ABLATIONS = (Path(__file__).parents[2] / name for name in ("sweeps", "ablations"))
LEVEL = 0.95
READ = ("macs", "params", "seconds", "depths", "train_images", "val_images", "val_images_seen", "versions", "git", "machine", "device",
        "resumed_at", "started")  # fmt: skip  # what it says of its runs, where its source has it


@dataclass
class Study:
    """Rows of one study or of several, by arm."""

    names: tuple[str, ...]
    rows: pd.DataFrame
    """All of them, with the column `arm`."""
    curves: pd.DataFrame
    baseline: str
    """The arm that the others are compared with."""
    metric: str = "top1"
    which: str = ""
    """What sets its runs apart from those of the same studies on other data, or trained otherwise."""

    @property
    def done(self) -> Any:
        """The finished rows."""
        return results.finished(self.rows)

    @property
    def arms(self) -> list[str]:
        """Arms with a finished run, in order."""
        return list(self.done["arm"].unique())

    @property
    def stem(self) -> str:
        """What its setting adds to the name of a file: nothing where there is one setting."""
        return "_" + re.sub(r"[^\w.+]+", "-", self.which).strip("-") if self.which else ""

    def question(self) -> str:
        """What the study's sweep file asks."""
        path = SWEEPS / f"{self.names[0]}.yaml"
        if not path.exists():
            return f"Study {self.names[0]}."
        lines = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
        until = next((i for i, line in enumerate(lines) if line.startswith(("Regenerates", "Cost"))), len(lines))
        return " ".join(lines[:until])

    def table(self) -> Table:
        """An arm a line: mean ± deviation, n and the mean's interval, costs and time."""
        metrics = [m for m in SHOWN if m in self.done and self.done[m].notna().any()]
        lines = []
        for arm, group in self._groups():
            line: dict[str, Any] = {"arm": arm, "n": len(group)}
            for metric in metrics:
                line[SHOWN[metric]] = numbers.mean(group[metric])
            found = stats.describe(group[self.metric], LEVEL)
            name = f"{LEVEL:.0%} of the mean {SHOWN[self.metric]}"
            line[name] = f"{100 * found.low:.1f} to {100 * found.high:.1f}" if found.n > 1 else numbers.ABSENT
            costs = {name: group[name].iloc[0] for name in ("macs", "params")}
            line["M multiply-adds"] = f"{costs['macs'] / 1e6:.2f}" if pd.notna(costs["macs"]) else "—"
            line["M parameters"] = f"{costs['params'] / 1e6:.3f}" if pd.notna(costs["params"]) else "—"
            line["seconds a run"] = numbers.mean(group["seconds"], 1)
            lines.append(line)
        notes = ["Mean ± sample deviation over n seeds, in percent, of the last epoch."]
        if common := base(self.done):
            notes.append(f"An arm's name says what it changes of the commonest values; {common}.")
        notes += results.not_counted(self.rows)
        return Table(f"{', '.join(self.names)}: {self.setting()}", pd.DataFrame(lines), notes + unknown_images(self.done))

    def comparisons(self, metric: str | None = None) -> pd.DataFrame:
        """Each arm against the baseline, paired by seed; columns of `stats.compare`."""
        return stats.compare(self.done, self.baseline, metric=metric or self.metric, level=LEVEL)

    def differences(self, metric: str | None = None) -> Table:
        """The comparisons to be read, in points of percent."""
        metric = metric or self.metric
        lines = [
            {
                f"{SHOWN[metric]} against {self.baseline}": line["arm"],
                "pairs": line["n"],
                "difference": numbers.points(line["difference"]),
                f"{LEVEL:.0%} interval": numbers.interval(line["low"], line["high"]),
                "p (t)": numbers.p_value(line["p"]),
                "p (t, Holm)": numbers.p_value(line["p_holm"]),
                "p (sign flips)": numbers.p_value(line["p_exact"]),
                "least p of sign flips": numbers.p_value(line["least_p"]),
                "P(higher)": numbers.share(*(line[f"superiority{end}"] for end in ("", "_low", "_high"))),
                "detectable": numbers.points(line["detectable"] or math.nan, ""),  # no spread says nothing
                "verdict": line["verdict"],
            }
            for line in self.comparisons(metric).to_dict("records")
        ]
        notes = [
            "Points of percent, paired by seed. Higher or lower is said only where the interval excludes zero and p after"
            " Holm is at most 0.05; detectable: the least true difference found 4 times in 5 with so many pairs."
        ]
        return Table(f"Differences from {self.baseline}", pd.DataFrame(lines), notes)

    def images(self) -> Table | None:
        """Each finished model against the baseline's of its seed, image by image; None where the source lacks outcomes."""
        if "correct" not in self.done or self.baseline not in self.arms:
            return None
        done = self.done[self.done["correct"].notna() & self.done["val_images_seen"].notna()]
        before = {row["seed"]: row for row in done[done["arm"] == self.baseline].to_dict("records")}
        lines = []
        for row in done[done["arm"] != self.baseline].to_dict("records"):
            other = before.get(row["seed"])
            if other is None or other["val_images_seen"] != row["val_images_seen"]:
                continue
            found = stats.compare_images(right(row), right(other), LEVEL)
            lines.append({"arm": row["arm"], "seed": row["seed"], "found": found})
        if not lines:
            return None
        for line, p in zip(lines, stats.holm([line["found"].p for line in lines]), strict=True):
            found = line.pop("found")
            line |= {
                "images": found.n, "only this right": found.only_a, "only the baseline right": found.only_b,
                "difference": numbers.points(found.difference),
                f"{LEVEL:.0%} interval": numbers.interval(found.low, found.high),
                "p (McNemar)": numbers.p_value(found.p), "p (McNemar, Holm)": numbers.p_value(p),
            }  # fmt: skip
        note = (
            "Two trained models on the same images: what of their difference other images would change. It says nothing about"
            " other seeds; the paired table does."
        )
        return Table(f"Image by image against {self.baseline} of the same seed", pd.DataFrame(lines), [note])

    def effects(self) -> Table | None:
        """Main effects and interactions, where at least two switches are crossed, and nothing else differs."""
        factors = results.varying(self.done)
        switches = {f.name for f in fields(Block)}
        if len(factors) < 2 or not switches.issuperset(factors) or len(self.done) < 2 * len(self.arms):
            return None
        if not crossed(self.done, factors):
            return None
        try:
            table = stats.effects(self.done, factors, self.metric)
        except UserError:  # runs without any spread: nothing moves
            return None
        shown = table.assign(
            share=[f"{100 * x:.1f} %" for x in table["share"]],
            **{n: [f"{x:.3g}" for x in table[n]] for n in ("sum_sq", "f")},
            **{n: [numbers.p_value(x) for x in table[n]] for n in ("p", "p_holm")},
        )
        return Table(f"What moves {SHOWN[self.metric]}: {', '.join(factors)}", shown, ["Share: of all variation between runs."])

    def findings(self) -> list[str]:
        """What may be concluded, a sentence a comparison."""
        return [stats.verdict(line, self.metric, LEVEL) for line in self.comparisons().to_dict("records")]

    def conclusion(self) -> str:
        """The findings in one line."""
        found: Any = self.comparisons()
        if found.empty:
            return f"{self.baseline} alone has finished runs: there is nothing to compare."
        if (found["verdict"] == "too few").all():
            return f"Too few pairs of runs to tell any arm from {self.baseline}: two seeds are needed, six better."
        decided = found[found["verdict"].isin(["higher", "lower"])]
        told = ", ".join(f"{line['arm']} ({line['verdict']})" for line in decided.to_dict("records"))
        return f"Told from {self.baseline}: {told}." if told else f"No arm is told from {self.baseline} by these runs."

    def verdict(self) -> Markdown:
        """Findings and conclusion."""
        return Markdown("\n".join([*(f"- {line}" for line in self.findings()), "", f"**{self.conclusion()}**"]))

    def setting(self) -> str:
        """Data and protocol, as far as all runs share them."""
        every = results.identities(self.done)
        differ = identity.varying(every)
        train, val = (_range(self.done[f"{part}_images"].dropna()) for part in ("train", "val"))
        images = f"{train} images to train on, {val} reported"
        size = "".join(
            f", {identity.value(every[0], name)} {unit}"
            for name, unit in (("resolution", "px"), ("epochs", "epochs"))
            if name not in differ
        )
        data = " and ".join(dict.fromkeys(naming.data_names(self.done.to_dict("records"))))
        return f"{data} ({images}){size}"

    def provenance(self) -> Table:
        """How it was run: a line a study."""
        lines = []
        for name, group in self.done.groupby("study", sort=False):
            several = lambda column, group=group: ", ".join(dict.fromkeys(map(numbers.plain, group[column])))
            versions = {n: v for line in group["versions"] if isinstance(line, dict) for n, v in line.items()}
            rows: Any = self.rows[self.rows["study"] == name]
            states = rows["state"].value_counts().items()
            lines.append(
                {
                    "study": name,
                    "runs": ", ".join(f"{n} {state}" for state, n in states),
                    "commit": several("git"),
                    "machine": several("machine"),
                    "device": several("device"),
                    "threads": several("threads"),
                    "torch": versions.get("torch", "—"),
                    "hours in all": f"{group['seconds'].sum() / 3600:.1f}" if group["seconds"].notna().any() else "—",
                    "taken up again": int(sum(bool(steps) for steps in group["resumed_at"])),
                    "first to last start": " to ".join(f(group["started"].dropna().map(str), default="—") for f in (min, max)),
                }
            )
        return Table("How it was run", pd.DataFrame(lines).T.reset_index().set_axis(["", *[""] * len(lines)], axis=1))

    def _groups(self) -> list[tuple[str, Any]]:
        return [(arm, self.done[self.done["arm"] == arm]) for arm in self.arms]


def read(
    *names: str, source: str | Path = ABLATIONS, baseline: str | None = None, metric: str | None = None, **where: Any
) -> Study:
    """The study of these names; of several, their arms beside each other.

    Args:
        names: of studies, the first giving the question; or places of their rows, such as runs/contraction.
        source: as in `results.load`; latencies come from ablations/latency.csv, whatever the source.
        baseline: the arm to compare with; left out: k = 0, which contracts nothing, else the arm of the published
            switches, else the first.
        metric: the one that is judged, chosen before looking; the others are shown. Left out: top-1, or mAP where the runs detect or retrieve.
        where: fields that a row must have, such as scheme="release".

    Raises:
        UserError: no such rows, no such arm, or runs of several settings, which `settings` reads one by one.
    """
    found = settings(*names, source=source, baseline=baseline, metric=metric, **where)
    if len(found) > 1:
        which = "; ".join(it.which for it in found)
        raise UserError(
            f"{', '.join(names)}: of several settings, which are not judged against each other: {which}; name studies of one, or give"
            " a field that picks it"
        )
    return found[0]


def settings(
    *names: str, source: str | Path = ABLATIONS, baseline: str | None = None, metric: str | None = None, **where: Any
) -> list[Study]:
    """The same, a study for each data set, task and protocol: their arms are not compared with each other.

    Raises:
        UserError: no such rows; or an arm that no setting has.
    """
    if metric not in (None, *SHOWN):
        raise UserError(f"metric={metric!r}: choose from {', '.join(SHOWN)}")
    rows: Any = latency.join(results.load(source, *names), ABLATIONS)
    rows = rows.assign(**{name: None for name in READ if name not in rows})
    rows["depths"] = rows["depths"].map(lambda depths: depths if isinstance(depths, list) else [])
    if unknown := [name for name in where if name not in rows]:
        raise UserError(f"{unknown[0]}: the rows of {', '.join(names)} have no such column")
    for name, value in where.items():
        rows = rows[rows[name] == value]
    if rows[rows["state"] == "done"].empty:
        raise UserError(f"{source}: no finished run of {', '.join(names)}" + f" where {where}" * bool(where))
    rows = rows.drop_duplicates(["key", "state"]).reset_index(drop=True)
    curves = results.curves(source, *names)
    if any(map(is_place, names)):
        names = tuple(dict.fromkeys(map(str, rows["study"])))
    parts = by_setting(rows)
    found = [_study(names, part, curves, which, baseline, metric) for which, part in parts]
    if baseline is not None and not any(baseline in it.arms for it in found):
        arms = ", ".join(arm for it in found for arm in it.arms)
        raise UserError(f"baseline={baseline!r}: the arms are {arms}")
    return found


def _study(names: tuple[str, ...], rows: Any, curves: Any, which: str, baseline: str | None, metric: str | None) -> Study:
    """The study of one setting; a baseline that is another setting's leaves this one its usual."""
    done = rows["state"] == "done"
    metric = metric or main_metric(rows[done].iloc[0])
    if metric not in rows or rows.loc[done, metric].isna().all():
        raise UserError(f"metric={metric!r}: the runs of {', '.join(names)} have none")
    results.arms(rows[done])  # refuses a seed twice
    rows = results.numbered(rows, metric).assign(arm="").reset_index(drop=True)
    done = rows["state"] == "done"
    rows.loc[done, "arm"] = labels(rows[done])
    arms = list(rows.loc[done, "arm"].unique())
    chosen = baseline if baseline is not None and baseline in arms else usual_arm(rows[done], arms)
    return Study(names, rows, curves, chosen, metric, which)


def right(row: dict[str, Any]) -> np.ndarray:
    """(N,) bool: which images the row's model classified rightly."""
    bits = np.frombuffer(base64.b64decode(row["correct"]), dtype=np.uint8)
    return np.unpackbits(bits)[: int(row["val_images_seen"])].astype(bool)


def _range(numbers: Any) -> str:
    """`120`, or `60 to 120` where arms differ."""
    if not len(numbers):
        return "—"
    return " to ".join(f"{n:.0f}" for n in sorted({numbers.min(), numbers.max()}))


def add_arguments(parser: Parser) -> None:
    """What the commands that read a study share; `from_arguments` reads it."""
    parser.add_argument(
        "study", nargs="+", help="The study, by name or where its rows lie, such as runs/STUDY; further ones beside it."
    )
    parser.add_argument("--source", default=ABLATIONS, help="Folder of runs, CSV, or wandb:ENTITY/PROJECT. [ablations]")
    parser.add_argument("--baseline", help="The arm to compare with. [k = 0 where it is, else the published switches]")
    parser.add_argument("--metric", help="What is judged. [top1; map where the runs detect or retrieve]")


def from_arguments(args: argparse.Namespace) -> list[Study]:
    """The study that a command line names: one for each data set, task and protocol."""
    return settings(*args.study, source=args.source, baseline=args.baseline, metric=args.metric)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m hbo.analysis.study", description="A study's tables and verdict.")
    add_arguments(parser)
    with one_line():
        found = from_arguments(parser.parse_args(argv))
        parts = [found[0].question()]
        for study in found:
            parts += [f"## {study.which}"] * bool(study.which)
            parts += [study.table().markdown(), study.differences().markdown(), study.verdict()]
        print("\n\n".join(parts))


if __name__ == "__main__":
    main()
