"""What a study's seeds can show before they are run: `python -m hbo.sweep plan FILE --detect 1.0`.

Differences, deviations and margins are fractions here, points of percent on the command line and in print.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hbo import files
from hbo.analysis import arms, contrasts, power, question, sources
from hbo.analysis.question import Family
from hbo.analysis.stats import SHOWN
from hbo.errors import UserError
from hbo.runs import identity
from hbo.sweep import asked
from hbo.sweep.plan import Entry
from hbo.sweep.study import Study
from hbo.text import aligned

POWER = 0.8  # found 4 times in 5


@dataclass(frozen=True)
class Deviation:
    """How much runs deviate that differ in the seed alone."""

    sd: float
    low: float | None
    high: float | None
    """The interval of 95 %; None where the command line says the deviation."""
    runs: int = 0
    arms: int = 0
    studies: tuple[str, ...] = ()
    """Whose finished runs it is pooled over; none where the command line says it."""

    @property
    def all(self) -> list[float]:
        """The deviation, and the ends of its interval."""
        return [sd for sd in (self.sd, self.low, self.high) if sd is not None]


@dataclass(frozen=True)
class Seeds:
    """Seeds of each arm that something takes, and what they cost; None: more than 1,000."""

    seeds: int | None
    low: int | None
    high: int | None
    """By the deviation's interval; as `seeds` where it has none."""
    runs: int | None
    hours: float | None
    """Of all arms on one device, what is finished included."""


@dataclass(frozen=True)
class Detect:
    """What a study can show of its primary lines, each found 4 times in 5."""

    metric: str
    difference: float
    lines: tuple[str, ...]
    level: float
    """Of each line, so that all of them together make a false alarm in at most 5 %."""
    deviation: Deviation
    find: Seeds
    """To tell a difference so large from zero."""
    own: Seeds
    """The file's."""
    detectable: tuple[float, ...]
    """The least difference that the file's seeds find, and what the deviation's interval makes of it; empty for one seed."""
    margin: float | None
    equivalent: Seeds | None
    """To show that a difference of zero lies within the margin; None where there is none."""


def detect(study: Study, runs: list[Entry], points: float, sd: float | None = None) -> Detect:
    """What the file's primary lines take.

    Args:
        study: the file.
        runs: all of it, with their estimated seconds.
        points: the true difference that is to be found, in points of percent.
        sd: the deviation of a run, in points of percent; left out: that of finished rows of the same data and protocol.

    Raises:
        UserError: nothing is compared; or there are no such rows, and no `sd`.
    """
    family, metric = asked.primary(study, runs), asked.metric(study, runs)
    by_arm = asked.by_arm(runs)
    named = {arm for one in family.contrasts for arm, weight in one.weights.items() if weight}
    found = Deviation(sd / 100, None, None) if sd is not None else _of_rows([e for arm in named for e in by_arm[arm]], metric)
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
        tuple(max(power.detectable(_parts(one, sd), own, each.difference, POWER) for one in family.contrasts) for sd in found.all) if own > 1 else (),
        margin,
        None if margin is None else needed(lambda parts, n: power.find_within(0.0, parts, n, each.within, margin)),
    )  # fmt: skip


def _most(family: Family, sd: float, power_of: Callable[[list[tuple[float, float]], int], float]) -> int | None:
    """The seeds that the most demanding of the lines takes."""
    found = [power.seeds(lambda n, one=one: power_of(_parts(one, sd), n), POWER) for one in family.contrasts]
    return None if None in found else max(n for n in found if n is not None)


def _parts(one: contrasts.Contrast, sd: float) -> list[tuple[float, float]]:
    return [(weight, sd) for weight in one.weights.values() if weight]


def _cost(by_arm: dict[str, list[Entry]], seeds: int | None, low: int | None, high: int | None) -> Seeds:
    """So many seeds of every arm of the file."""
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
    """Pooled over finished runs of the same data and protocol, in the folders where the study's runs lie and in ablations/.

    Raises:
        UserError: there are no two of them that differ in the seed alone.
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
            f"--detect: no two finished runs of this data and protocol differ in the seed alone and in their {SHOWN[metric]}, so that"
            " their deviation is not known; say it in points of percent, such as --sd 1.5"
        )
    keys = [key for found in several for key in found]
    return Deviation(sd, low, high, len(keys), len(several), tuple(sorted({studies[key] for key in keys})))


def _rows(outs: set[str]) -> list[dict[str, Any]]:
    """Finished rows of folders of runs, then of ablations/."""
    from hbo.analysis.judged import ABLATIONS

    folders = [files.expanded(out) for out in sorted(outs)]
    places = [folder for folder in folders if any(folder.glob("*/*/row.json"))]
    places += [ABLATIONS] * any(ABLATIONS.glob("*.csv"))
    return [row for place in places for row, _ in sources.read(str(place), ()) if row["state"] == "done" and "git" in row]


# ------------------------------------------------------------ to read


def as_dict(found: Detect, study: Study) -> dict[str, Any]:
    """For JSON, with the question; fractions."""
    return {"question": question.as_dict(study.primary), "power": POWER} | asdict(found)


def expected(found: Detect) -> dict[str, Any]:
    """What a frozen plan says of it."""
    sd = found.deviation
    source = ", ".join(sd.studies) if sd.studies else "--sd"
    return {"sd": sd.sd, "low": sd.low, "high": sd.high, "from": source, "detect": found.difference, "seeds": found.find.seeds}


def text(found: Detect) -> str:
    """The same for people, in points of percent."""
    point = lambda share: f"{100 * share:.1f}"
    metric, sd = SHOWN[found.metric], found.deviation
    together = f", each at {100 * found.level:.2g} %" * (len(found.lines) > 1)
    head = f"primary{together}: {'; '.join(found.lines)}"
    if sd.low is None or sd.high is None:
        source = f"a run deviates by {point(sd.sd)} points of {metric}, as --sd says"
    else:
        source = (
            f"a run deviates by {point(sd.sd)} points of {metric} ({point(sd.low)} to {point(sd.high)}), pooled over {sd.runs} runs"
            f" of the same data and protocol, {sd.arms} arm{'s' * (sd.arms != 1)} of {', '.join(sd.studies)}"
        )
    what = f"{point(found.detectable[0])} points" if found.detectable else "nothing, as one seed has no deviation"
    if len(found.detectable) > 1:
        what += f" ({point(found.detectable[1])} to {point(found.detectable[2])})"
    lines = [["found 4 times in 5", "seeds an arm", "by the deviation's interval", "runs", "hours on one device"]]
    lines.append(_line(f"a difference of {point(found.difference)} points", found.find))
    lines.append([*_line(f"by the file's own seeds: {what}", found.own)[:2], "", *_line("", found.own)[3:]])
    if found.equivalent is not None and found.margin is not None:
        lines.append(_line(f"equivalence within {point(found.margin)} points, of no difference", found.equivalent))
    return "\n".join([head, source, "", *aligned(lines, right=(1, 3, 4))])


def _line(what: str, found: Seeds) -> list[str]:
    count = lambda n: f"more than {power.MOST:,}" if n is None else f"{n}"
    wide = f"{count(found.low)} to {count(found.high)}" if found.low != found.high else ""
    hours = "" if found.hours is None else f"{found.hours:.1f}"
    return [what, count(found.seeds), wide, "" if found.runs is None else f"{found.runs}", hours]
