"""Contrasts of arms and what they show: higher, lower, equivalent, undecided or too few.

A contrast is a weighted sum of arms' means: a difference of two, a mean of differences, a trend. Each arm keeps a deviation of
its own (Welch's t, degrees of freedom by Satterthwaite), as noise that is pooled over unequal arms gives up to 15 % false
alarms, and so does noise that is shrunk towards the study's (both simulated; tests/test_contrasts.py). Arms are paired by seed only where
seeds explain the runs' variance. Metrics are fractions in [0, 1], and so are levels and p. Tests are two-sided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hbo.analysis import power

Samples = Mapping[str, Mapping[int, float]]  # arm -> seed -> its metric
ROUNDING = 1e-12  # a deviation below this is floating point's and not the runs'
PAIRING = 0.01  # p of seeds' share in the variance, at or below which arms are paired


@dataclass(frozen=True)
class Contrast:
    """What is compared, as the weights of arms, which add up to 0."""

    label: str
    """`k=2 against k=1`."""
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Levels:
    """The probabilities of error that a line is given."""

    difference: float
    """Of a difference where there is none, two-sided."""
    within: float
    """Of an equivalence where the difference is as large as the margin: of each of two one-sided tests."""


@dataclass(frozen=True)
class Pairing:
    """What seeds explain of the runs' variance, over the seeds that all arms have."""

    seeds: int
    correlation: float
    """Of two arms over the seeds, the same for all: (MS of seeds - MS left) / (MS of seeds + (arms - 1) MS left); nan below 3 seeds."""
    p: float
    """Of no such share (F test); nan where nothing is left to test against."""
    used: bool


@dataclass(frozen=True)
class Judged:
    """A contrast judged.

    n: the fewest and the most runs of its arms; of pairs where `paired`.
    difference, se, df, [low, high]: the estimate, its standard error and degrees of freedom, and the interval at the line's level.
    p, p_adjusted: of no difference, alone and over the lines of its family (Sidak).
    within_low, within_high, p_within: the interval that has to lie inside the margin (90 % where the level is 5 %), and the larger p of two one-sided tests.
    sd, sd_low, sd_high: the standard deviation of a run, pooled over the contrast's arms (of a seed's own contrast, where
        paired), and its own interval of 95 %.
    detectable, detectable_low, detectable_high: the least true difference found 4 times in 5 with as many seeds, and what its interval makes of it.
    needed: seeds an arm that would decide it 4 times in 5, were the difference and the deviations as they are; None: more than 1,000.
    verdict: higher or lower than zero, `equivalent` within the margin (even where zero is excluded), undecided, or too few.
    """

    label: str
    n: tuple[int, int]
    paired: bool
    verdict: str
    difference: float = math.nan
    se: float = math.nan
    df: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_adjusted: float = math.nan
    within_low: float = math.nan
    within_high: float = math.nan
    p_within: float = math.nan
    sd: float = math.nan
    sd_low: float = math.nan
    sd_high: float = math.nan
    detectable: float = math.nan
    detectable_low: float = math.nan
    detectable_high: float = math.nan
    needed: int | None = None


def levels(lines: int, level: float = 0.95) -> Levels:
    """Those of each of a family's lines, so that a false alarm anywhere among them has at most 1 - level (Sidak)."""
    each = 1 - level ** (1 / max(1, lines))
    return Levels(each, each)


def judge(
    samples: Samples, contrasts: Sequence[Contrast], margin: float | None = None, each: Levels | None = None
) -> list[Judged]:
    """Judge a family of contrasts; a sample's order changes nothing.

    Args:
        samples: of all arms of the study, by seed; those that no contrast weighs say what seeds explain, too.
        contrasts: of one family.
        margin: a difference that does not matter, as a fraction; None: nothing is called equivalent.
        each: a line's levels; left out: `levels` of so many lines.
    """
    each = each or levels(len(contrasts))
    by_seed = pairing(samples)
    return [_judge(samples, one, by_seed.used, margin, each, len(contrasts)) for one in contrasts]


def pairing(samples: Samples) -> Pairing:
    """What seeds explain, by an analysis of variance of arms and seeds; pairing pays where that is beyond doubt.

    With normal noise the choice depends on the runs' deviations and not on the arms' means, so that it makes no false alarms
    worth naming (simulated in the tests).
    """
    from scipy.stats import f

    shared = sorted(set.intersection(*map(set, samples.values()))) if samples else []
    arms, n = len(samples), len(shared)
    if arms < 2 or n < 3:
        return Pairing(n, math.nan, math.nan, False)
    x = np.array([[runs[seed] for seed in shared] for runs in samples.values()], float)
    x = x - x.mean(1, keepdims=True)
    block = x.mean(0)
    between = arms * float(block @ block) / (n - 1)
    left = float(((x - block) ** 2).sum()) / ((n - 1) * (arms - 1))
    if left <= ROUNDING**2:
        return Pairing(n, math.nan, math.nan, False)
    p = float(f.sf(between / left, n - 1, (n - 1) * (arms - 1)))
    return Pairing(n, (between - left) / (between + (arms - 1) * left), p, p <= PAIRING)


def _judge(samples: Samples, contrast: Contrast, paired: bool, margin: float | None, each: Levels, lines: int) -> Judged:
    """One contrast, from each arm's own runs, or from the seeds that its arms share."""
    from scipy.stats import chi2, t

    runs = {arm: samples.get(arm, {}) for arm, weight in contrast.weights.items() if weight}
    shared = set.intersection(*map(set, runs.values())) if runs else set()
    paired = paired and len(shared) > 1
    counts = [len(shared)] if paired else [len(of_arm) for of_arm in runs.values()]
    n = (min(counts, default=0), max(counts, default=0))
    if n[0] < 2:
        means = {arm: float(np.mean(sorted(of_arm.values()))) for arm, of_arm in runs.items() if of_arm}
        full = len(means) == len(runs) > 0
        difference = sum(w * means[a] for a, w in contrast.weights.items() if w) if full else math.nan
        return Judged(contrast.label, n, paired, "too few", difference)
    parts = _parts(runs, contrast, sorted(shared) if paired else None)
    difference = math.fsum(weight * mean for weight, mean, _, _ in parts)
    variances = [weight**2 * sd**2 / many for weight, _, sd, many in parts]
    se, kept = math.sqrt(math.fsum(variances)), sum(many - 1 for *_, many in parts)
    sd = math.sqrt(math.fsum((many - 1) * sd**2 for *_, sd, many in parts) / kept)
    if se <= ROUNDING:  # runs that all stayed at the largest class say nothing of other seeds
        return Judged(contrast.label, n, paired, "undecided", difference, 0.0, sd=0.0)
    df = sum(variances) ** 2 / sum(v**2 / (many - 1) for v, (*_, many) in zip(variances, parts, strict=True))
    half, half_within = (float(t.isf(a, df)) * se for a in (each.difference / 2, each.within))
    p = float(2 * t.sf(abs(difference) / se, df))
    p_within = float(t.sf((margin - abs(difference)) / se, df)) if margin is not None else math.nan
    low, high = difference - half, difference + half
    verdict = "higher" if low > 0 else "lower" if high < 0 else "undecided"
    if margin is not None and abs(difference) + half_within < margin:
        verdict = "equivalent"
    widths = [math.sqrt(kept / float(chi2.ppf(q, kept))) for q in (0.975, 0.025)]
    arms = [(weight, deviation) for weight, _, deviation, _ in parts]
    found = power.detectable(arms, n[0], each.difference, pairs=paired)
    return Judged(
        contrast.label, n, paired, verdict, difference, se, df, low, high, p, 1 - (1 - p) ** lines,
        difference - half_within, difference + half_within, p_within,
        sd, sd * widths[0], sd * widths[1], found, found * widths[0], found * widths[1],
        _needed(difference, arms, each, margin, paired) if verdict == "undecided" else None,
    )  # fmt: skip


def _parts(runs: Samples, contrast: Contrast, shared: list[int] | None) -> list[tuple[float, float, float, int]]:
    """(weight, mean, sample deviation, n) of each arm; with shared seeds of the seeds' own contrasts alone."""
    if shared is None:
        weighed = [(contrast.weights[arm], np.sort(list(of_arm.values()))) for arm, of_arm in runs.items()]
    else:
        values = [math.fsum(contrast.weights[arm] * of_arm[seed] for arm, of_arm in runs.items()) for seed in shared]
        weighed = [(1.0, np.sort(values))]
    return [(weight, float(x.mean()), float(x.std(ddof=1)), len(x)) for weight, x in weighed]


def _needed(
    difference: float, arms: list[tuple[float, float]], each: Levels, margin: float | None, paired: bool
) -> int | None:
    """Seeds an arm that decide it either way with a power of 0.8."""
    ways = [power.seeds(lambda n: power.find(difference, arms, n, each.difference, paired))] if difference else []
    if margin is not None and abs(difference) < margin:
        ways.append(power.seeds(lambda n: power.find_within(difference, arms, n, each.within, margin, paired)))
    return min((n for n in ways if n is not None), default=None)
