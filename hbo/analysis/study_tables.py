"""The tables of a study's page: arms, differences, images, effects, and how it was run."""

from __future__ import annotations

import base64
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hbo.analysis import numbers, outliers, results, sentences, stats
from hbo.analysis.contrasts import LEVEL, Judged
from hbo.analysis.crossed import crossed as over_seeds_and_images
from hbo.analysis.grouping import balanced, base, crossed
from hbo.analysis.numbers import ABSENT
from hbo.analysis.printed import Table
from hbo.analysis.stats import SHOWN
from hbo.analysis.tables import unknown_images
from hbo.block import Block
from hbo.errors import UserError
from hbo.runs import deployed, identity, naming
from hbo.text import counted

# Columns of `stats.effects` in words.
EFFECTS = {
    "term": "effect of", "df": "degrees of freedom", "sum_sq": "sum of squares", "share": "share",
    "f": "F", "p_holm": "p, adjusted",
}  # fmt: skip

if TYPE_CHECKING:
    from hbo.analysis.families import Family
    from hbo.analysis.judged import Study


def arms(study: Study) -> Table:
    """One line per arm: mean ± standard deviation, n and the mean's interval, costs and time."""
    done = study.done
    metrics = [m for m in SHOWN if m in done and done[m].notna().any()]
    odd = outliers.odd(done, study.metric)
    lines = []
    for arm in study.arms:
        group = done[done["arm"] == arm]
        line: dict[str, Any] = {"arm": arm, "n": len(group)}
        if odd:
            line["odd runs"] = int(group["key"].isin(odd).sum())
        for metric in metrics:
            line[SHOWN[metric]] = numbers.mean(group[metric])
        values = [x for x in group[study.metric].astype(float) if math.isfinite(x)]
        name = f"{LEVEL:.0%} interval of mean {SHOWN[study.metric]}"
        about = stats.describe(values, LEVEL).percent() if len(values) > 1 else None
        line[name] = f"{about.low:.1f} to {about.high:.1f}" if about else ABSENT
        costs = {name: group[name].iloc[0] for name in ("macs", "params")}
        line["M multiply-adds"] = f"{costs['macs'] / 1e6:.2f}" if pd.notna(costs["macs"]) else ABSENT
        line["M parameters"] = f"{costs['params'] / 1e6:.3f}" if pd.notna(costs["params"]) else ABSENT
        line |= _deployed(group)
        line["seconds per run"] = numbers.mean(group["seconds"], 1)
        lines.append(line)
    notes = ["Metrics of the last epoch in percent: mean ± sample standard deviation over n seeds."]
    if common := base(done):
        notes.append(f"An arm's name lists its differences from the most common values; {common}.")
    notes += results.not_counted(study.rows)
    if said := outliers.sentence(done, study.metric):
        notes.append(said)
    return Table(
        f"{', '.join(study.names)}: {setting(study)}", pd.DataFrame(lines), notes + unknown_images(done)
    )


def _deployed(group: Any) -> dict[str, str]:
    """Measurements of its runs' deployed files: int8's top-1, and milliseconds per image, by runtime."""
    line = {}
    for name in group:
        if name.startswith(deployed.TOP1):
            line[f"int8 top-1, {name.removeprefix(deployed.TOP1)}"] = numbers.mean(group[name])
        elif name.startswith(deployed.LATENCY):
            runtime = name.removeprefix(deployed.LATENCY).replace(deployed.INT8, ", int8")
            median = group[name].median()
            line[f"ms, {runtime}"] = f"{median:.2f}" if pd.notna(median) else ABSENT
    return line


def differences(study: Study, metric: str | None = None) -> Table:
    """Every judged line, in percentage points, the primary ones first."""
    judged = study.judged(metric)
    exploring = metric not in (None, study.metric)
    metric = metric or study.metric
    share, lines = study.asked.share, []
    for family, found in judged:
        for line in (sentences.shown(line, family.kind) for line in found):
            shown = {
                SHOWN[metric]: line.label,
                "": "primary" if family.primary and not exploring else "exploratory",
                "n": sentences.seeds(line),
                "difference": numbers.points(line.difference),
                f"{LEVEL:.0%} interval": numbers.interval(line.low, line.high),
            }
            if share is not None:
                within = (
                    ABSENT if family.kind == "trend" else numbers.interval(line.within_low, line.within_high)
                )
                shown[f"{2 * LEVEL - 1:.0%} interval"] = within
            shown |= {
                "p": numbers.p_value(line.p_adjusted), "detectable": _detectable(line, family.kind),
                "verdict": line.verdict,
            }  # fmt: skip
            lines.append(shown)
    one = "pairs of runs" if any(line.paired for _, found in judged for line in found) else "runs"
    looks = study.plan is not None and len(study.plan.looks) > 1 and not exploring
    adjusted = "Intervals, and p of other than primary lines," if looks else "Intervals and p"
    notes = [
        f"Differences in percentage points, by Welch's t over {one}. {adjusted} are adjusted for all"
        " lines of a family. A line is higher or lower if its interval excludes zero. Detectable: the"
        " smallest true difference that is detected with 80 % power."
    ]
    if share is not None:
        notes.append(
            f"Equivalent: the {2 * LEVEL - 1:.0%} interval is within {sentences.many(share)} (two one-sided"
            " tests at 5 %)."
        )
    if study.plan is not None and looks:
        notes.append(
            f"Looks at {', '.join(map(str, study.plan.looks))} seeds: primary intervals are repeated"
            " confidence intervals, at the level spent at each look; a primary p is its line's own, and is"
            " compared with that level."
        )
        notes += _waiting(study, judged)
    return Table("Differences", pd.DataFrame(lines), notes)


def _waiting(study: Study, judged: list[tuple[Family, list[Judged]]]) -> list[str]:
    """A note on the runs that no look has read yet: the arms' means have them, the differences do not."""
    n = {arm: len(runs) for arm, runs in study.samples().items()}
    more = {
        arm: line.next_look
        for family, found in judged
        for one, line in zip(family.contrasts, found, strict=True)
        for arm in one.weights
        if line.next_look is not None and n.get(arm, 0) > line.looks[line.look]
    }
    if not more:
        return []
    said = ", ".join(f"{arm} ({n[arm]} seeds, look at {look})" for arm, look in more.items())
    return [f"Seeds beyond a look wait for the next one: {said}."]


def _detectable(line: Judged, kind: str) -> str:
    """In points; no two shares differ by more than 100."""
    found = line.detectable[0]
    return "> 100" if found > 1 and kind != "trend" else numbers.points(found, "")


def images(study: Study) -> Table | None:
    """Each pair of arms over new seeds and new images; None if the source lacks outcomes."""
    done = study.done
    if "correct" not in done:
        return None
    done = done[done["correct"].notna() & done["val_images_seen"].notna()]
    found = {arm: [right(row) for row in done[done["arm"] == arm].to_dict("records")] for arm in study.arms}
    seen = {len(bits) for runs in found.values() for bits in runs}
    pairs = [
        (a, b)
        for family in study.families()
        if family.kind == "each"
        for a, b in (list(one.weights) for one in family.contrasts)
    ]
    pairs = [pair for pair in pairs if all(len(found[arm]) > 1 for arm in pair)]
    if len(seen) != 1 or not pairs:
        return None
    lines = []
    for a, b in pairs:
        both = over_seeds_and_images(np.array(found[a]), np.array(found[b]), LEVEL)
        lines.append(
            {
                "": f"{a} against {b}", "n": f"{both.n[0]} and {both.n[1]} seeds, {both.images} images",
                "difference": numbers.points(both.difference),
                f"{LEVEL:.0%} over new seeds and images": numbers.interval(
                    numbers.bounded(both.low), numbers.bounded(both.high)
                ),
                "standard error, seeds": f"{100 * both.se_seeds:.2f}",
                "standard error, images": f"{100 * both.se_images:.2f}",
            }
        )  # fmt: skip
    note = (
        "Top-1, in percentage points. The interval covers new seeds and new photographs of the same kind."
        " Exploratory: not adjusted for multiple comparisons."
    )
    return Table("Intervals over new seeds and new images", pd.DataFrame(lines), [note])


def effects(study: Study) -> Table | None:
    """Main effects and interactions, if at least two switches are crossed and nothing else differs; for a
    fraction only main effects.
    """
    factors = results.varying(study.done)
    switches = {f.name for f in fields(Block)}
    if len(factors) < 2 or not switches.issuperset(factors) or len(study.done) < 2 * len(study.arms):
        return None
    whole = crossed(study.done, factors)
    if not whole and not balanced(study.done, factors):
        return None
    try:
        table = stats.effects(study.done, factors, study.metric, order=2 if whole else 1)
    except UserError:  # runs without variance: no effects
        return None
    shown = table.assign(
        share=[f"{100 * x:.1f} %" for x in table["share"]],
        **{n: [f"{x:.3g}" for x in table[n]] for n in ("sum_sq", "f")},
        **{n: [numbers.p_value(x) for x in table[n]] for n in ("p", "p_holm")},
    )
    notes = ["Share: the share of the variance between runs. Adjusted p: Holm's, over the effects here."]
    if not whole:
        notes.append(
            "Only a fraction of the combinations was run: interactions count as noise, and an interaction"
            " aliased with a main effect counts as that effect."
        )
    return Table(
        f"Effects on {SHOWN[study.metric]}: {', '.join(factors)}", shown.rename(columns=EFFECTS), notes
    )


def provenance(study: Study) -> Table:
    """Protocol and machine, one line per study."""
    lines = []
    recorded = study.done["instructions"].notna().any()  # not by rows of before November 28, 2026
    for name, group in study.done.groupby("study", sort=False):
        several = lambda column, group=group: ", ".join(dict.fromkeys(map(numbers.plain, group[column])))
        versions = {n: v for line in group["versions"] if isinstance(line, dict) for n, v in line.items()}
        rows: Any = study.rows[study.rows["study"] == name]
        states = rows["state"].value_counts().items()
        lines.append(
            {
                "study": name,
                "runs": ", ".join(f"{n} {state}" for state, n in states),
                "commit": several("git"),
                "machine": several("machine"),
                **({"instructions": counted_each(group["instructions"])} if recorded else {}),
                "device": several("device"),
                "threads": several("threads"),
                "torch": versions.get("torch", ABSENT),
                "total hours": f"{group['seconds'].sum() / 3600:.1f}"
                if group["seconds"].notna().any()
                else ABSENT,
                "resumed runs": int(sum(bool(steps) for steps in group["resumed_at"])),
                "first to last start": " to ".join(
                    f(group["started"].dropna().map(str), default=ABSENT) for f in (min, max)
                ),
            }
        )
    return Table(
        "How it was run", pd.DataFrame(lines).T.reset_index().set_axis(["", *[""] * len(lines)], axis=1)
    )


def counted_each(values: pd.Series) -> str:
    """Each value and how many rows have it, as the last bits of a sum depend on the instructions."""
    counts = values.astype(object).where(values.notna(), "not recorded").value_counts(sort=False)
    return ", ".join(f"{value} ({n})" for value, n in counts.items())


def setting(study: Study) -> str:
    """Data and protocol that all runs share."""
    every = results.identities(study.done)
    differ = identity.varying(every)
    train, val = (_range(study.done[f"{part}_images"].dropna()) for part in ("train", "val"))
    images = f"{train} training and {val} validation images"
    size = "".join(
        f", {said(identity.value(every[0], name))}"
        for name, said in (("resolution", "{} px".format), ("epochs", lambda n: counted(n, "epoch")))
        if name not in differ
    )
    data = " and ".join(dict.fromkeys(naming.data_names(study.done.to_dict("records"))))
    return f"{data} ({images}){size}"


def right(row: dict[str, Any]) -> np.ndarray:
    """(N,) bool: which images the row's model classified correctly.

    Raises:
        UserError: there are outcomes for fewer images than the row reports.
    """
    bits, seen = (
        np.unpackbits(np.frombuffer(base64.b64decode(row["correct"]), dtype=np.uint8)),
        int(row["val_images_seen"]),
    )
    if len(bits) < seen:
        raise UserError(
            f"{row['key']}: its outcomes (correct) have {len(bits)} images, its metrics {seen}; the row is"
            " damaged: remove it"
        )
    return bits[:seen].astype(bool)


def _range(numbers: Any) -> str:
    """`120`, or `60 to 120` if arms differ."""
    if not len(numbers):
        return ABSENT
    return " to ".join(f"{n:.0f}" for n in sorted({numbers.min(), numbers.max()}))
