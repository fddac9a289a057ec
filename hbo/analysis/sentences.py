"""Judged contrasts in plain sentences, in percentage points."""

import math
from dataclasses import replace

from hbo.analysis import numbers
from hbo.analysis.contrasts import PAIRING, Judged, Pairing
from hbo.analysis.numbers import bounded, points
from hbo.analysis.stats import SHOWN

FEW = 6  # with fewer runs per arm, a verdict says how many there are


def shown(line: Judged, kind: str) -> Judged:
    """The line as it is printed and drawn: within +-100 points, the largest difference of two shares; a
    trend's slope has no such bound.
    """
    if kind == "trend":
        return line
    names = ("difference", "low", "high", "within_low", "within_high")
    return replace(line, **{name: bounded(getattr(line, name)) for name in names})


def sentence(line: Judged, metric: str, margin: float | None = None) -> str:
    """A line's difference, interval, p and verdict, and what remains open.

    Args:
        line: judged.
        metric: its column.
        margin: the largest difference that does not matter, as a fraction.
    """
    name, runs = SHOWN.get(metric, metric.replace("_", " ")), seeds(line)
    if line.verdict == "too few":
        why = f"the first look is at {line.looks[0]}" if line.looks else "each arm needs at least 2"
        return f"{line.label}: {runs}, too few to judge; {why}."
    if line.se == 0:
        return (
            f"{line.label}: {points(line.difference)} points of {name} on {runs}; all runs are equal, so the"
            " detectable difference is unknown."
        )
    start = (
        f"{line.label}: {points(line.difference)} points [{points(line.low)}, {points(line.high)}] of {name}"
    )
    start += f", {p_value(line.p_adjusted)}"
    verdict = f"{line.verdict} on {runs}" if line.n[0] < FEW else line.verdict
    if line.verdict == "equivalent":
        assert margin is not None
        aside = "; the difference is not zero, but too small to matter" * (line.low > 0 or line.high < 0)
        within = f"[{points(line.within_low)}, {points(line.within_high)}] is within {many(margin)}"
        return f"{start}: {verdict}, as {within} (two one-sided tests){aside}."
    if line.verdict != "undecided":
        return f"{start}: {verdict}."
    if line.next_look is not None:
        return f"{start}: {verdict} at {early(line)} {excluded(line)}"
    return f"{start}: {verdict}. {excluded(line)} {needed(line)}{detectable(line)}"


def early(line: Judged) -> str:
    """Which of the looks an undecided line is at, its strict level there, and the next look."""
    return (
        f"look {line.look + 1} of {len(line.looks)}, where a difference needs p of at most"
        f" {line.each.difference:.2g}. The next look is at {line.next_look} seeds."
    )


def excluded(line: Judged) -> str:
    """Differences that an undecided line excludes."""
    ends = [f"above {points(line.high)}"] * (line.high < 1) + [f"below {points(line.low)}"] * (line.low > -1)
    return f"Differences {' and '.join(ends)} are excluded." if ends else "No difference is excluded."


def needed(line: Judged) -> str:
    """The number of seeds that would decide it."""
    if line.needed is None:
        return "More than 1,000 seeds per arm would be needed at this difference and standard deviation."
    return f"About {line.needed} seeds per arm would decide it at this difference and standard deviation."


def detectable(line: Judged) -> str:
    """The difference that the line's seeds detect with 80 % power; empty without variance."""
    found = line.detectable
    if math.isnan(found[0]):
        return ""
    if found[0] >= 1:
        return f" With the present {seeds(line)}, no difference is detected with 80 % power."
    middle, least, most = (f"{100 * min(x, 1):.1f}" for x in found)
    return (
        f" With the present {seeds(line)}, a true difference of {middle} points ({least} to {most}) is"
        " detected with 80 % power."
    )


def seeds(line: Judged) -> str:
    """`6 seeds`, `6 and 4 seeds`, `5 pairs`."""
    least, most = line.n
    what = "pair" if line.paired else "seed"
    many = f"{least}" if least == most else f"{least} to {most}"
    return f"{many} {what}{'s' * (most != 1)}"


def pairing(found: Pairing) -> str:
    """The benefit of pairing by seed, and whether it was used."""
    if math.isnan(found.correlation):
        return "Too few seeds to decide on pairing by seed: runs are not paired."
    start = (
        f"The correlation between arms over their {found.seeds} common seeds is"
        f" {found.correlation:+.2f} ({p_value(found.p)})"
    )
    if not found.used:
        return (
            f"{start}: too weak to pair runs by seed (p would have to be at most {PAIRING:g}). Runs are not"
            " paired; each arm has its own standard deviation."
        )
    worth = 1 / (1 - found.correlation) if found.correlation < 1 else math.inf
    return f"{start}: runs are paired by seed, and a pair is worth {worth:.1f} unpaired runs of each arm."


def p_value(p: float) -> str:
    """`p = 0.023`, and never zero."""
    shown = numbers.p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def many(fraction: float) -> str:
    """`1 point`, `2.5 points`."""
    return f"{100 * fraction:g} point{'s' * (round(100 * fraction, 9) != 1)}"
