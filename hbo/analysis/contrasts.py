"""Contrasts of arms and their verdicts: higher, lower, equivalent, undecided or too few.

A contrast is a weighted sum of arms' means: a difference of two, a mean of differences, a trend. Each arm
keeps its own standard deviation (Welch's t, degrees of freedom by Satterthwaite): variances pooled over
unequal arms give up to 15 % false positives, and so do variances shrunk towards the study's (both simulated;
tests/test_contrasts.py). Arms are paired by seed only if seeds explain the runs' variance. Metrics, levels
and p are fractions in [0, 1]. Tests are two-sided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hbo.analysis import power

LEVEL = 0.95  # confidence level of a family
Samples = Mapping[str, Mapping[int, float]]  # arm -> seed -> its metric
ROUNDING = 1e-12  # smaller deviations are rounding errors
NEAR = 0.1  # relative to the larger
DRAWS = 10_000  # simulated studies for a family's level
# Share of the family's level that the simulation aims at, as its standard deviations are estimates.
AIM = 0.9
PAIRING = 0.01  # arms are paired if the seeds' share of the variance has at most this p


@dataclass(frozen=True)
class Contrast:
    """A comparison, as weights of arms that add up to 0."""

    label: str
    """`k=2 against k=1`."""
    weights: Mapping[str, float]


def slope(x: Sequence[float]) -> np.ndarray:
    """Weights that give the least-squares slope of values over x."""
    away = np.asarray(x, float) - np.mean(x)
    return away / (away @ away)


def same_budget(a: float, b: float) -> bool:
    """Whether two counts of multiply-adds are the same budget: within 10 % of the larger."""
    return abs(a - b) <= NEAR * max(a, b)


@dataclass(frozen=True)
class Levels:
    """Error probabilities of a line."""

    difference: float
    """Of a false difference, two-sided."""
    within: float
    """Of a false equivalence, with a difference as large as the margin: of each of two one-sided tests."""


@dataclass(frozen=True)
class Pairing:
    """The seeds' share of the runs' variance, over the seeds that all arms have."""

    seeds: int
    correlation: float
    """Intraclass correlation of the arms over the seeds: (MS of seeds - residual MS) / (MS of seeds + (arms -
    1) residual MS); nan below 3 seeds."""
    p: float
    """p for a share of zero (F test); nan without residual degrees of freedom."""
    used: bool


@dataclass(frozen=True)
class Judged:
    """A contrast judged.

    n: the fewest and the most runs of its arms; pairs if `paired`.
    verdict: higher or lower than zero, `equivalent` within the margin (even if zero is excluded),
    undecided, or too few. difference, se, df, [low, high]: the estimate, its standard error and degrees of
    freedom, and the interval at the line's level. p, p_adjusted: of no difference, alone and over the lines
    of its family. within_low, within_high, p_within: the interval that must be inside the margin (90 % if
    the level is 5 %), and the larger p of two one-sided tests.
    arms: (weight, sample standard deviation, runs) of each arm; of the per-seed contrasts if paired.
    each, margin: the levels and the margin used.
    looks, at_last, look: for a study with looks, the numbers of seeds, the levels at the last look, and the
    line's look (0 is the first; -1: none yet).
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
    arms: tuple[tuple[float, float, int], ...] = ()
    each: Levels = Levels(math.nan, math.nan)
    margin: float | None = None
    looks: tuple[int, ...] = ()
    at_last: Levels | None = None
    look: int = -1

    @property
    def next_look(self) -> int | None:
        """The number of seeds of the next look; None unless the line is undecided at an earlier one."""
        early = self.verdict == "undecided" and 0 <= self.look < len(self.looks) - 1
        return self.looks[self.look + 1] if early else None

    @property
    def sd(self) -> tuple[float, float, float]:
        """The standard deviation of a run (of a per-seed contrast if paired), pooled over the arms, and its
        95 % interval.
        """
        return pooled([(sd, many) for _, sd, many in self.arms])

    @property
    def detectable(self) -> tuple[float, float, float]:
        """The smallest true difference detected with 80 % power at this number of seeds, and its range over
        the standard deviation's interval; nan without variance.
        """
        sd, low, high = self.sd
        if not self.arms or not sd:
            return math.nan, math.nan, math.nan
        found = power.detectable(self._parts(), self.n[0], self.each.difference, pairs=self.paired)
        return found, found * low / sd, found * high / sd

    @property
    def needed(self) -> int | None:
        """Seeds per arm for 80 % power if the difference and the standard deviations stay as they are; None:
        more than 1,000. With looks, at the level of the last one: at an early look's more would be needed.
        """
        parts, d, each, margin = self._parts(), self.difference, self.at_last or self.each, self.margin
        if not parts or not self.se:
            return None
        ways = [power.seeds(lambda n: power.find(d, parts, n, each.difference, self.paired))] if d else []
        if margin is not None and abs(d) < margin:
            ways.append(
                power.seeds(lambda n: power.find_within(d, parts, n, each.within, margin, self.paired))
            )
        return min((n for n in ways if n is not None), default=None)

    def _parts(self) -> list[tuple[float, float]]:
        return [(weight, sd) for weight, sd, _ in self.arms]


def pooled(arms: Sequence[tuple[float, int]]) -> tuple[float, float, float]:
    """The standard deviation of a run, pooled over arms, each (sample standard deviation, runs), and its 95 %
    interval; nan without any.
    """
    from scipy.stats import chi2

    kept = sum(many - 1 for _, many in arms)
    if kept < 1:
        return math.nan, math.nan, math.nan
    sd = math.sqrt(math.fsum((many - 1) * sd**2 for sd, many in arms) / kept)
    low, high = (sd * math.sqrt(kept / float(chi2.ppf(q, kept))) for q in (0.975, 0.025))
    return sd, low, high


def levels(lines: int, level: float = LEVEL) -> Levels:
    """Levels of each of a family's lines, so that the probability of any false positive
    is at most 1 - level (Sidak).
    """
    each = 1 - level ** (1 / max(1, lines))
    return Levels(each, each)


def judge(
    samples: Samples, contrasts: Sequence[Contrast], margin: float | None = None, each: Levels | None = None
) -> list[Judged]:
    """Judge a family of contrasts; the order of samples does not matter.

    Args:
        samples: every arm of the study, arm -> seed -> metric; arms outside the contrasts also count for the
            seeds' share.
        contrasts: of one family.
        margin: the largest difference that does not matter, as a fraction; None: no verdict of equivalence.
        each: a line's levels; None: `levels` for this number of lines.
    """
    paired = pairing(samples).used
    found = [
        _judge(samples, one, paired, margin, each or levels(len(contrasts)), len(contrasts))
        for one in contrasts
    ]
    if each is not None or paired or len(contrasts) < 2:
        return found
    least = drawn(samples, [one for one, line in zip(contrasts, found, strict=True) if line.se > 0])
    if not len(least):
        return found
    usual = levels(len(contrasts))
    together = replace(
        usual, difference=max(usual.difference, float(least[int(AIM * (1 - LEVEL) * len(least)) - 1]))
    )
    again = [_judge(samples, one, False, margin, together, len(contrasts)) for one in contrasts]
    shares = [float(np.searchsorted(least, line.p, side="right")) / len(least) / AIM for line in again]
    return [
        replace(line, p_adjusted=min(line.p_adjusted, share)) if line.se > 0 else line
        for line, share in zip(again, shares, strict=True)
    ]


def drawn(samples: Samples, contrasts: Sequence[Contrast], draws: int | None = None) -> np.ndarray:
    """The smallest p of a family in each of many simulated studies without any difference, each arm with its
    runs' standard deviation; sorted.

    Lines that share an arm are correlated, and Welch's test is conservative with few runs: Sidak's level,
    which assumes independent lines, would lose power.

    Args:
        samples: of the arms; at least 2 runs for each arm in a contrast.
        contrasts: of one family.
        draws: random numbers of the studies; None: 10,000 studies with a fixed seed.
    """
    from scipy.special import stdtr

    named = [arm for arm in samples if any(one.weights.get(arm) for one in contrasts)]
    if not named:
        return np.empty(0)
    rng, many = np.random.default_rng(0), np.array([len(samples[arm]) for arm in named], float)
    # A mean's variance.
    of_mean = np.array([np.var(sorted(samples[arm].values()), ddof=1) for arm in named]) / many
    weights = np.array([[one.weights.get(arm, 0.0) for arm in named] for one in contrasts])
    size = (draws or DRAWS, len(named))
    means = rng.normal(size=size) * np.sqrt(of_mean)
    variances = of_mean * rng.chisquare(many - 1, size=size) / (many - 1)
    square = variances @ (weights**2).T
    df = square**2 / ((variances**2 / (many - 1)) @ (weights**4).T)
    return np.sort((2 * stdtr(df, -np.abs(means @ weights.T) / np.sqrt(square))).min(1))


def pairing(samples: Samples) -> Pairing:
    """The seeds' share of the variance, by an analysis of variance of arms and seeds;
    pairing helps only if this share is significant.

    With normal noise the choice depends on the runs' standard deviations and not on the arms' means, so
    it adds no relevant false positives (simulated in the tests).
    """
    shared = sorted(set.intersection(*map(set, samples.values()))) if samples else []
    arms, n = len(samples), len(shared)
    if arms < 2 or n < 3:
        return Pairing(n, math.nan, math.nan, False)
    x = np.array([[runs[seed] for seed in shared] for runs in samples.values()], float)
    correlation, p = (float(one) for one in of_seeds(x))
    return Pairing(n, correlation, p, p <= PAIRING)


def of_seeds(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The intraclass correlation over the seeds and its p, as in `Pairing`, for results of shape
    (..., arms, seeds); nan without residuals.
    """
    from scipy.stats import f

    *_, arms, n = x.shape
    x = x - x.mean(-1, keepdims=True)
    block = x.mean(-2, keepdims=True)
    between = arms * (block**2).sum((-1, -2)) / (n - 1)
    left = ((x - block) ** 2).sum((-1, -2)) / ((n - 1) * (arms - 1))
    left = np.where(left <= ROUNDING**2, np.nan, left)
    return (between - left) / (between + (arms - 1) * left), f.sf(between / left, n - 1, (n - 1) * (arms - 1))


@dataclass(frozen=True)
class Estimate:
    """A contrast's estimate from its runs: `parts` are (weight, mean, sample standard deviation, n) of each
    arm, or of the per-seed contrasts.
    """

    parts: list[tuple[float, float, float, int]]
    paired: bool
    difference: float
    se: float
    df: float
    p: float


def estimate(samples: Samples, contrast: Contrast, paired: bool) -> Estimate:
    """The estimate, its standard error, Satterthwaite's degrees of freedom, and p; needs 2 runs per arm."""
    from scipy.stats import t

    runs = {arm: samples[arm] for arm, weight in contrast.weights.items() if weight}
    parts = _parts(runs, contrast, sorted(_shared(runs)) if paired else None)
    difference = math.fsum(weight * mean for weight, mean, _, _ in parts)
    variances = [weight**2 * sd**2 / many for weight, _, sd, many in parts]
    se = math.sqrt(math.fsum(variances))
    if se <= ROUNDING:
        return Estimate(parts, paired, difference, 0.0, math.nan, math.nan)
    df = math.fsum(variances) ** 2 / math.fsum(
        v**2 / (many - 1) for v, (*_, many) in zip(variances, parts, strict=True)
    )
    return Estimate(parts, paired, difference, se, df, float(2 * t.sf(abs(difference) / se, df)))


def _shared(runs: Samples) -> set[int]:
    return set.intersection(*map(set, runs.values())) if runs else set()


def _judge(
    samples: Samples, contrast: Contrast, paired: bool, margin: float | None, each: Levels, lines: int
) -> Judged:
    """One contrast, from each arm's runs, or from the seeds that its arms share."""
    from scipy.stats import t

    runs = {arm: samples.get(arm, {}) for arm, weight in contrast.weights.items() if weight}
    shared = _shared(runs)
    paired = paired and len(shared) > 1
    counts = [len(shared)] if paired else [len(of_arm) for of_arm in runs.values()]
    n = (min(counts, default=0), max(counts, default=0))
    if n[0] < 2:
        return Judged(contrast.label, n, paired, "too few", _plain(runs, contrast))
    it = estimate(samples, contrast, paired)
    if it.se == 0:  # runs that all predict the largest class say nothing about other seeds
        return Judged(contrast.label, n, paired, "undecided", it.difference, 0.0)
    half, half_within = (float(t.isf(a, it.df)) * it.se for a in (each.difference / 2, each.within))
    p_within = float(t.sf((margin - abs(it.difference)) / it.se, it.df)) if margin is not None else math.nan
    low, high = it.difference - half, it.difference + half
    verdict = "higher" if low > 0 else "lower" if high < 0 else "undecided"
    if margin is not None and abs(it.difference) + half_within < margin:
        verdict = "equivalent"
    return Judged(
        contrast.label, n, paired, verdict, it.difference, it.se, it.df, low, high, it.p,
        1 - (1 - it.p) ** lines,
        it.difference - half_within, it.difference + half_within, p_within,
        tuple((weight, sd, many) for weight, _, sd, many in it.parts), each, margin,
    )  # fmt: skip


def _plain(runs: Samples, contrast: Contrast) -> float:
    """The difference of the means, if any, with too few runs for an interval."""
    if not runs or not all(runs.values()):
        return math.nan
    return math.fsum(
        contrast.weights[arm] * float(np.mean(sorted(of_arm.values()))) for arm, of_arm in runs.items()
    )


def _parts(
    runs: Samples, contrast: Contrast, shared: list[int] | None
) -> list[tuple[float, float, float, int]]:
    """(weight, mean, sample standard deviation, n) of each arm, or with shared seeds
    only of the per-seed contrasts.
    """
    if shared is None:
        weighed = [(contrast.weights[arm], np.sort(list(of_arm.values()))) for arm, of_arm in runs.items()]
    else:
        values = [
            math.fsum(contrast.weights[arm] * of_arm[seed] for arm, of_arm in runs.items()) for seed in shared
        ]
        weighed = [(1.0, np.sort(values))]
    return [(weight, float(x.mean()), float(x.std(ddof=1)), len(x)) for weight, x in weighed]
