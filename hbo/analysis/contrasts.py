"""Contrasts of arms and what they show: higher, lower, equivalent, undecided or too few.

A contrast is a weighted sum of arms' means: a difference of two, a mean of differences, a trend. Each arm keeps a deviation of
its own (Welch's t, degrees of freedom by Satterthwaite), as noise that is pooled over unequal arms gives up to 15 % false
alarms, and so does noise that is shrunk towards the study's (both simulated; tests/test_contrasts.py). Arms are paired by seed only where
seeds explain the runs' variance. Metrics are fractions in [0, 1], and so are levels and p. Tests are two-sided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hbo.analysis import power

LEVEL = 0.95  # of a family
Samples = Mapping[str, Mapping[int, float]]  # arm -> seed -> its metric
ROUNDING = 1e-12  # a deviation below this is floating point's and not the runs'
DRAWS = 10_000  # studies drawn for a family's level
AIM = 0.9  # share of the family's level that the draws aim at, as the deviations that they are drawn with are estimates
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
    verdict: higher or lower than zero, `equivalent` within the margin (even where zero is excluded), undecided, or too few.
    difference, se, df, [low, high]: the estimate, its standard error and degrees of freedom, and the interval at the line's level.
    p, p_adjusted: of no difference, alone and over the lines of its family.
    within_low, within_high, p_within: the interval that has to lie inside the margin (90 % where the level is 5 %), and the
        larger p of two one-sided tests.
    arms: (weight, sample deviation, runs) of each arm; of the seeds' own contrasts where paired.
    each, margin: what it was judged by.
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

    @property
    def sd(self) -> tuple[float, float, float]:
        """The standard deviation of a run (of a seed's own contrast, where paired), pooled over the arms, and its interval of 95 %."""
        return pooled([(sd, many) for _, sd, many in self.arms])

    @property
    def detectable(self) -> tuple[float, float, float]:
        """The least true difference found 4 times in 5 with as many seeds, and what the deviation's interval makes of it; nan where nothing varies."""
        sd, low, high = self.sd
        if not self.arms or not sd:
            return math.nan, math.nan, math.nan
        found = power.detectable(self._parts(), self.n[0], self.each.difference, pairs=self.paired)
        return found, found * low / sd, found * high / sd

    @property
    def needed(self) -> int | None:
        """Seeds an arm that would decide it 4 times in 5, were the difference and the deviations as they are; None: more than 1,000."""
        parts, d, each, margin = self._parts(), self.difference, self.each, self.margin
        if not parts or not self.se:
            return None
        ways = [power.seeds(lambda n: power.find(d, parts, n, each.difference, self.paired))] if d else []
        if margin is not None and abs(d) < margin:
            ways.append(power.seeds(lambda n: power.find_within(d, parts, n, each.within, margin, self.paired)))
        return min((n for n in ways if n is not None), default=None)

    def _parts(self) -> list[tuple[float, float]]:
        return [(weight, sd) for weight, sd, _ in self.arms]


def pooled(arms: Sequence[tuple[float, int]]) -> tuple[float, float, float]:
    """The standard deviation of a run, pooled over arms, each (sample deviation, runs), and its interval of 95 %; nan without any."""
    from scipy.stats import chi2

    kept = sum(many - 1 for _, many in arms)
    if kept < 1:
        return math.nan, math.nan, math.nan
    sd = math.sqrt(math.fsum((many - 1) * sd**2 for sd, many in arms) / kept)
    low, high = (sd * math.sqrt(kept / float(chi2.ppf(q, kept))) for q in (0.975, 0.025))
    return sd, low, high


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
    paired = pairing(samples).used
    found = [_judge(samples, one, paired, margin, each or levels(len(contrasts)), len(contrasts)) for one in contrasts]
    if each is not None or paired or len(contrasts) < 2:
        return found
    least = drawn(samples, [one for one, line in zip(contrasts, found, strict=True) if line.se > 0])
    if not len(least):
        return found
    usual = levels(len(contrasts))
    together = replace(usual, difference=max(usual.difference, float(least[int(AIM * (1 - LEVEL) * len(least)) - 1])))
    again = [_judge(samples, one, False, margin, together, len(contrasts)) for one in contrasts]
    shares = [float(np.searchsorted(least, line.p, side="right")) / len(least) / AIM for line in again]
    return [
        replace(line, p_adjusted=min(line.p_adjusted, share)) if line.se > 0 else line
        for line, share in zip(again, shares, strict=True)
    ]


def drawn(samples: Samples, contrasts: Sequence[Contrast], draws: int | None = None) -> np.ndarray:
    """The least p of a family in drawn studies in which no arm differs, each arm as noisy as its runs; sorted.

    Lines that share an arm go together, and Welch's test of few runs is cautious: Sidak's level for each line, which is that
    of independent lines, leaves power unused.

    Args:
        samples: of the arms; 2 runs each at least of those that are weighed.
        contrasts: of one family.
        draws: of studies; left out: 10,000, with a seed of their own.
    """
    from scipy.special import stdtr

    named = [arm for arm in samples if any(one.weights.get(arm) for one in contrasts)]
    if not named:
        return np.empty(0)
    rng, many = np.random.default_rng(0), np.array([len(samples[arm]) for arm in named], float)
    of_mean = np.array([np.var(sorted(samples[arm].values()), ddof=1) for arm in named]) / many  # a mean's variance
    weights = np.array([[one.weights.get(arm, 0.0) for arm in named] for one in contrasts])
    size = (draws or DRAWS, len(named))
    means = rng.normal(size=size) * np.sqrt(of_mean)
    variances = of_mean * rng.chisquare(many - 1, size=size) / (many - 1)
    square = variances @ (weights**2).T
    df = square**2 / ((variances**2 / (many - 1)) @ (weights**4).T)
    return np.sort((2 * stdtr(df, -np.abs(means @ weights.T) / np.sqrt(square))).min(1))


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


@dataclass(frozen=True)
class Estimate:
    """A contrast's value from its runs: `parts` are (weight, mean, sample deviation, n) of each arm, or of the seeds' own contrasts."""

    parts: list[tuple[float, float, float, int]]
    paired: bool
    difference: float
    se: float
    df: float
    p: float


def estimate(samples: Samples, contrast: Contrast, paired: bool) -> Estimate:
    """The value, its standard error, Satterthwaite's degrees of freedom, and p; from 2 runs an arm on."""
    from scipy.stats import t

    runs = {arm: samples[arm] for arm, weight in contrast.weights.items() if weight}
    parts = _parts(runs, contrast, sorted(_shared(runs)) if paired else None)
    difference = math.fsum(weight * mean for weight, mean, _, _ in parts)
    variances = [weight**2 * sd**2 / many for weight, _, sd, many in parts]
    se = math.sqrt(math.fsum(variances))
    if se <= ROUNDING:
        return Estimate(parts, paired, difference, 0.0, math.nan, math.nan)
    df = math.fsum(variances) ** 2 / math.fsum(v**2 / (many - 1) for v, (*_, many) in zip(variances, parts, strict=True))
    return Estimate(parts, paired, difference, se, df, float(2 * t.sf(abs(difference) / se, df)))


def _shared(runs: Samples) -> set[int]:
    return set.intersection(*map(set, runs.values())) if runs else set()


def _judge(samples: Samples, contrast: Contrast, paired: bool, margin: float | None, each: Levels, lines: int) -> Judged:
    """One contrast, from each arm's own runs, or from the seeds that its arms share."""
    from scipy.stats import t

    runs = {arm: samples.get(arm, {}) for arm, weight in contrast.weights.items() if weight}
    shared = _shared(runs)
    paired = paired and len(shared) > 1
    counts = [len(shared)] if paired else [len(of_arm) for of_arm in runs.values()]
    n = (min(counts, default=0), max(counts, default=0))
    if n[0] < 2:
        return Judged(contrast.label, n, paired, "too few", _plain(runs, contrast))
    it = estimate(samples, contrast, paired)
    if it.se == 0:  # runs that all stayed at the largest class say nothing of other seeds
        return Judged(contrast.label, n, paired, "undecided", it.difference, 0.0)
    half, half_within = (float(t.isf(a, it.df)) * it.se for a in (each.difference / 2, each.within))
    p_within = float(t.sf((margin - abs(it.difference)) / it.se, it.df)) if margin is not None else math.nan
    low, high = it.difference - half, it.difference + half
    verdict = "higher" if low > 0 else "lower" if high < 0 else "undecided"
    if margin is not None and abs(it.difference) + half_within < margin:
        verdict = "equivalent"
    return Judged(
        contrast.label, n, paired, verdict, it.difference, it.se, it.df, low, high, it.p, 1 - (1 - it.p) ** lines,
        it.difference - half_within, it.difference + half_within, p_within,
        tuple((weight, sd, many) for weight, _, sd, many in it.parts), each, margin,
    )  # fmt: skip


def _plain(runs: Samples, contrast: Contrast) -> float:
    """The difference of the means where there are any, of too few runs to say more."""
    if not runs or not all(runs.values()):
        return math.nan
    return math.fsum(contrast.weights[arm] * float(np.mean(sorted(of_arm.values()))) for arm, of_arm in runs.items())


def _parts(runs: Samples, contrast: Contrast, shared: list[int] | None) -> list[tuple[float, float, float, int]]:
    """(weight, mean, sample deviation, n) of each arm; with shared seeds of the seeds' own contrasts alone."""
    if shared is None:
        weighed = [(contrast.weights[arm], np.sort(list(of_arm.values()))) for arm, of_arm in runs.items()]
    else:
        values = [math.fsum(contrast.weights[arm] * of_arm[seed] for arm, of_arm in runs.items()) for seed in shared]
        weighed = [(1.0, np.sort(values))]
    return [(weight, float(x.mean()), float(x.std(ddof=1)), len(x)) for weight, x in weighed]
