"""What a study's seeds can detect, before they are run: `python -m hbo.sweep plan FILE --detect 1.0`.

Differences, standard deviations and margins are fractions here, percentage points on
the command line and in print.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hbo import files
from hbo.analysis import arms, contrasts, power, question, sources
from hbo.analysis.families import Family
from hbo.analysis.stats import SHOWN
from hbo.errors import UserError
from hbo.runs import identity
from hbo.sweep import asked
from hbo.sweep.plan import Entry
from hbo.sweep.study import Sweep
from hbo.text import aligned

POWER = 0.8  # probability of detection


@dataclass(frozen=True)
class Deviation:
    """Standard deviation of runs that differ only in the seed."""

    sd: float
    low: float | None
    high: float | None
    """The 95 % interval; None if the command line gives the standard deviation."""
    runs: int = 0
    arms: int = 0
    studies: tuple[str, ...] = ()
    """The studies over whose finished runs it is pooled; empty if the command line gives it."""

    @property
    def all(self) -> list[float]:
        """The standard deviation, and the ends of its interval."""
        return [sd for sd in (self.sd, self.low, self.high) if sd is not None]


@dataclass(frozen=True)
class Seeds:
    """Seeds per arm that are needed, and their cost; None: more than 1,000."""

    seeds: int | None
    low: int | None
    high: int | None
    """For the ends of the standard deviation's interval; equal to `seeds` without one."""
    runs: int | None
    hours: float | None
    """Hours of all arms on one device, including finished runs."""


@dataclass(frozen=True)
class Detect:
    """What a study can detect in its primary lines with 80 % power."""

    metric: str
    difference: float
    lines: tuple[str, ...]
    level: float
    """Level of each line, so that all lines together have at most 5 % false positives."""
    deviation: Deviation
    find: Seeds
    """To detect this difference."""
    own: Seeds
    """The file's."""
    detectable: tuple[float, ...]
    """The smallest difference that the file's seeds detect, and its range over the standard deviation's
    interval; empty for one seed."""
    margin: float | None
    equivalent: Seeds | None
    """To show that a difference of zero is within the margin; None without a margin."""


def detect(study: Sweep, runs: list[Entry], points: float, sd: float | None = None) -> Detect:
    """Seeds that the file's primary lines need.

    Args:
        study: the file.
        runs: all of it, with their estimated seconds.
        points: the true difference to detect, in percentage points.
        sd: the standard deviation of a run, in percentage points; None: that of finished rows with the same
            data and protocol.

    Raises:
        UserError: no comparison; or there are no such rows, and no `sd`.
    """
    family, metric = asked.primary(study, runs), asked.metric(study, runs)
    by_arm = asked.by_arm(runs)
    named = {arm for one in family.contrasts for arm, weight in one.weights.items() if weight}
    found = (
        Deviation(sd / 100, None, None)
        if sd is not None
        else _of_rows([e for arm in named for e in by_arm[arm]], metric)
    )
    each = contrasts.levels(len(family.contrasts))
    own = min(len({e.run.seed for e in by_arm[arm] if e.run}) for arm in named)
    margin = study.primary.share if family.kind != "trend" else None
    difference = points / 100

    def needed(power_of: Callable[[list[tuple[float, float]], int], float]) -> Seeds:
        seeds, *ends = [_most(family, sd, power_of) for sd in found.all]
        low, high = ends or (seeds, seeds)
        return _cost(by_arm, seeds, low, high)

    return Detect(
        metric, difference, tuple(one.label for one in family.contrasts), each.difference, found,
        needed(lambda parts, n: power.find(difference, parts, n, each.difference)),
        _cost(by_arm, own, own, own),
        tuple(
            max(power.detectable(_parts(one, sd), own, each.difference, POWER) for one in family.contrasts)
            for sd in found.all
        ) if own > 1 else (),
        margin,
        None if margin is None
        else needed(lambda parts, n: power.find_within(0.0, parts, n, each.within, margin)),
    )  # fmt: skip


def _most(
    family: Family, sd: float, power_of: Callable[[list[tuple[float, float]], int], float]
) -> int | None:
    """The seeds that the most demanding line needs."""
    found = [power.seeds(lambda n, one=one: power_of(_parts(one, sd), n), POWER) for one in family.contrasts]
    return None if None in found else max(n for n in found if n is not None)


def _parts(one: contrasts.Contrast, sd: float) -> list[tuple[float, float]]:
    return [(weight, sd) for weight in one.weights.values() if weight]


def _cost(by_arm: dict[str, list[Entry]], seeds: int | None, low: int | None, high: int | None) -> Seeds:
    """Seeds of every arm of the file, with their cost."""
    if seeds is None:
        return Seeds(None, low, high, None, None)
    took = [
        [e.seconds * e.run.world for e in own if e.run and e.seconds is not None and e.state != "running"]
        for own in by_arm.values()
    ]
    hours = seeds * sum(map(statistics.mean, took)) / 3600 if all(took) else None
    return Seeds(seeds, low, high, seeds * len(by_arm), hours)


# ------------------------------------------------------------ the deviation


def _of_rows(runs: list[Entry], metric: str) -> Deviation:
    """Pooled over finished runs with the same data and protocol, in the folders of the
    study's runs and in ablations/.

    Raises:
        UserError: no two of them differ only in the seed.
    """
    alike = {arms.protocol(entry.identity) for entry in runs}
    samples: dict[str, dict[str, float]] = {}
    studies: dict[str, str] = {}
    for row in _rows({entry.run.out for entry in runs if entry.run}):
        one, value = identity.of_row(row), row.get(metric)
        if isinstance(value, (int, float)) and math.isfinite(value) and arms.protocol(one) in alike:
            samples.setdefault(identity.group(one), {}).setdefault(str(row["key"]), float(value))
            studies.setdefault(str(row["key"]), str(row["study"]))
    several = [found for found in samples.values() if len(found) > 1]
    sd, low, high = contrasts.pooled([(statistics.stdev(found.values()), len(found)) for found in several])
    if not sd > 0:
        raise UserError(
            f"--detect: no two finished runs with this data and protocol differ only in the seed and in their"
            f" {SHOWN[metric]}, so their standard deviation is unknown; give it in percentage points, such"
            " as --sd 1.5"
        )
    keys = [key for found in several for key in found]
    return Deviation(sd, low, high, len(keys), len(several), tuple(sorted({studies[key] for key in keys})))


def _rows(outs: set[str]) -> list[dict[str, Any]]:
    """Finished rows of folders of runs, then of ablations/."""
    from hbo.analysis.judged import ABLATIONS

    folders = [files.expanded(out) for out in sorted(outs)]
    places = [folder for folder in folders if any(folder.glob("*/*/row.json"))]
    places += [ABLATIONS] * any(ABLATIONS.glob("*.csv"))
    return [
        row
        for place in places
        for row, _ in sources.read(str(place), ())
        if row["state"] == "done" and "git" in row
    ]


# ------------------------------------------------------------ output


def as_dict(found: Detect, study: Sweep) -> dict[str, Any]:
    """For JSON, with the question; fractions."""
    return {"question": question.as_dict(study.primary), "power": POWER} | asdict(found)


def expected(found: Detect) -> dict[str, Any]:
    """The entry in a frozen plan."""
    sd = found.deviation
    source = ", ".join(sd.studies) if sd.studies else "--sd"
    return {
        "sd": sd.sd,
        "low": sd.low,
        "high": sd.high,
        "from": source,
        "detect": found.difference,
        "seeds": found.find.seeds,
    }


def text(found: Detect) -> str:
    """The same as text, in percentage points."""
    point = lambda share: f"{100 * share:.1f}"
    metric, sd = SHOWN[found.metric], found.deviation
    together = f", each at {100 * found.level:.2g} %" * (len(found.lines) > 1)
    head = f"primary{together}: {'; '.join(found.lines)}"
    if sd.low is None or sd.high is None:
        source = f"standard deviation of a run: {point(sd.sd)} points of {metric}, from --sd"
    else:
        source = (
            f"standard deviation of a run: {point(sd.sd)} points of {metric} ({point(sd.low)} to"
            f" {point(sd.high)}),"
            f" pooled over {sd.runs} runs with the same data and protocol, {sd.arms}"
            f" arm{'s' * (sd.arms != 1)} of {', '.join(sd.studies)}"
        )
    what = (
        f"{point(found.detectable[0])} points"
        if found.detectable
        else "nothing, as one seed has no standard deviation"
    )
    if len(found.detectable) > 1:
        what += f" ({point(found.detectable[1])} to {point(found.detectable[2])})"
    lines = [
        [
            "detected with 80 % power",
            "seeds per arm",
            "over the deviation's interval",
            "runs",
            "hours on one device",
        ]
    ]
    each = ", by every line" * (len(found.lines) > 1)
    lines.append(_line(f"a difference of {point(found.difference)} points{each}", found.find))
    lines.append([*_line(f"with the file's own seeds: {what}", found.own)[:2], "", *_line("", found.own)[3:]])
    if found.equivalent is not None and found.margin is not None:
        lines.append(
            _line(
                f"equivalence within {point(found.margin)} points, if there is no difference",
                found.equivalent,
            )
        )
    return "\n".join([head, source, "", *aligned(lines, right=(1, 3, 4))])


def _line(what: str, found: Seeds) -> list[str]:
    count = lambda n: f"more than {power.MOST:,}" if n is None else f"{n}"
    wide = f"{count(found.low)} to {count(found.high)}" if found.low != found.high else ""
    hours = "" if found.hours is None else f"{found.hours:.1f}"
    return [what, count(found.seeds), wide, "" if found.runs is None else f"{found.runs}", hours]
