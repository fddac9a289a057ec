"""Judged contrasts in plain sentences, in points of percent."""

import math

from hbo.analysis.contrasts import Judged, Pairing
from hbo.analysis.stats import SHOWN

FEW = 6  # runs an arm below which a verdict says on how many it rests


def sentence(line: Judged, metric: str, margin: float | None = None) -> str:
    """A line's difference, interval, p and verdict, and what it leaves open.

    Args:
        line: judged.
        metric: its column.
        margin: a difference that does not matter, as a fraction.
    """
    name, runs = SHOWN.get(metric, metric.replace("_", " ")), seeds(line)
    if line.verdict == "too few":
        return f"{line.label}: {runs}, too few to judge; 2 of each arm are needed."
    if line.se == 0:
        return f"{line.label}: {points(line.difference)} points of {name} on {runs}; nothing varies, so that these runs do not say what could have been found."
    start = f"{line.label}: {points(line.difference)} points [{points(line.low)}, {points(line.high)}] of {name}"
    start += f", {p_value(line.p_adjusted)}"
    verdict = f"{line.verdict} on {runs}" if line.n[0] < FEW else line.verdict
    if line.verdict == "equivalent":
        assert margin is not None
        aside = "; the difference is not zero, but too small to matter" * (line.low > 0 or line.high < 0)
        within = f"[{points(line.within_low)}, {points(line.within_high)}] lies within {many(margin)}"
        return f"{start}: {verdict}, as {within} (two one-sided tests){aside}."
    if line.verdict != "undecided":
        return f"{start}: {verdict}."
    return f"{start}: {verdict}. {excluded(line)} {needed(line)}{detectable(line)}"


def excluded(line: Judged) -> str:
    """What an undecided line excludes all the same."""
    return f"Differences above {points(line.high)} and below {points(line.low)} are excluded."


def needed(line: Judged) -> str:
    """How many seeds would decide it."""
    if line.needed is None:
        return "More than 1,000 seeds of each arm would be needed if the difference and the deviation stay as they are."
    return f"Some {line.needed} seeds of each arm would decide it if the difference and the deviation stay as they are."


def detectable(line: Judged) -> str:
    """What so many seeds find 4 times in 5; nothing where nothing varies."""
    found = line.detectable
    if math.isnan(found[0]):
        return ""
    middle, least, most = (f"{100 * x:.1f}" for x in found)
    return f" With so many a true difference of {middle} points ({least} to {most}) is found 4 times in 5."


def seeds(line: Judged) -> str:
    """`6 seeds`, `6 and 4 seeds`, `5 pairs`."""
    least, most = line.n
    what = "pair" if line.paired else "seed"
    many = f"{least}" if least == most else f"{least} to {most}"
    return f"{many} {what}{'s' * (most != 1)}"


def pairing(found: Pairing) -> str:
    """What pairing by seed is worth, and whether it was used."""
    if math.isnan(found.correlation):
        return "Whether pairing by seed pays cannot be said from so few seeds: arms are compared by all of their runs."
    start = f"Two arms correlate by {found.correlation:+.2f} over the {found.seeds} seeds that all have ({p_value(found.p)})"
    if not found.used:
        return f"{start}: too little to pair runs by seed, so that arms are compared by all of their runs, each with its own deviation."
    worth = 1 / (1 - found.correlation) if found.correlation < 1 else math.inf
    return f"{start}: runs are paired by seed, and a pair is worth {worth:.1f} unpaired runs of each arm."


def p_value(p: float) -> str:
    """`p = 0.02`, and never zero."""
    return "no p" if math.isnan(p) else "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def many(fraction: float) -> str:
    """`1 point`, `2.5 points`."""
    return f"{100 * fraction:g} point{'s' * (round(100 * fraction, 9) != 1)}"


def points(fraction: float) -> str:
    """A fraction in points of percent with its sign; one decimal, or two below 0.1."""
    if math.isnan(fraction):
        return "—"
    digits = 1 if abs(100 * fraction) >= 0.1 else 2
    return f"{round(100 * fraction, digits) + 0.0:+.{digits}f}"  # + 0.0 makes -0.0 zero
