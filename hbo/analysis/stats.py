"""What the runs of a study show, and how surely: arms paired by their seed, two models on the same images, factorial studies.

Metrics are fractions in [0, 1], and so are levels, powers, shares and p. Tests are two-sided. scipy and statsmodels take a
second to import: only the functions that need them do.
"""

import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hbo.errors import UserError
from hbo.tasks import COLUMNS

ROUNDING = 1e-12  # share of the largest value below which a difference is floating point's and not the runs'
EXACT, FLIPS = 14, 9999  # pairs up to which all 2^n sign flips are tried, and the random ones tried above that
SHOWN = COLUMNS  # a metric's column, and how it is read


@dataclass(frozen=True)
class Described:
    """A sample: its mean, sample deviation `sd`, and the t interval [low, high] of the mean; nan where n is 1."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Arm a less arm b over n pairs of runs, each pair of one seed.

    difference, sd, [low, high]: mean of a - b, its sample deviation, its t interval (not adjusted for other comparisons).
    p, p_exact: paired t test; sign-flip permutation test of the mean, over all 2^n flips up to 14 pairs, else 9999 random.
    least_p: 2 / 2^n, the least that p_exact can be with all flips.
    detectable: least true difference that n pairs with this sd would show, in a t test at 1 - level, with the given power.
    superiority: P(a > b), the share of pairs with a > b, ties half. Its Clopper-Pearson interval counts ties against a in the
        low end and for a in the high end, and so is no narrower than the level asks for.
    """

    n: int
    difference: float
    sd: float
    low: float
    high: float
    p: float
    p_exact: float
    least_p: float
    detectable: float
    superiority: float
    superiority_low: float
    superiority_high: float


@dataclass(frozen=True)
class ImageTest:
    """Two finished models on the same n images: `only_a` are right in a alone, `difference` is accuracy of a less that of b.

    p: McNemar's exact test. [low, high]: percentile interval of a paired bootstrap over the images.
    """

    n: int
    only_a: int
    only_b: int
    p: float
    difference: float
    low: float
    high: float


def describe(values: Any, level: float = 0.95) -> Described:
    """Mean, deviation and t interval of a sample (n,); `UserError` where it is empty or not all finite."""
    from scipy import stats

    x = _numbers(values)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Described(1, mean, math.nan, math.nan, math.nan)
    sd = float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Described(n, mean, sd, mean - half, mean + half)


def paired(a: Any, b: Any, level: float = 0.95, power: float = 0.8) -> Paired:
    """Compare two arms' values a and b, both (n,), of which a[i] and b[i] are of one seed.

    Differences that are equal but for rounding count as equal; then the interval is a point, and p is that of sign flips: a
    few small sets agree by chance, of which t would be sure.
    `UserError`: unequal lengths, fewer than 2 pairs, or values that are not finite.
    """
    from scipy import stats

    a, b = _numbers(a), _numbers(b)
    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"{len(a)} and {len(b)} values cannot be paired; as many on both sides are needed, and 2 at least")
    tiny = ROUNDING * max(np.abs(a).max(), np.abs(b).max())
    # Sorted, so that the order of the pairs does not change the last digit.
    d = np.sort(a - b)
    d[np.abs(d) <= tiny] = 0
    flips = _sign_flip(d, tiny)
    if np.ptp(d) <= tiny:
        d[:] = mean = float(d[0])
        about, p = Described(len(d), mean, 0.0, mean, mean), flips
    else:
        test: Any = stats.ttest_1samp(d, 0)
        about, p = describe(d, level), float(test.pvalue)
    wins, ties = int((d > 0).sum()), int((d == 0).sum())
    low, high = _exact(wins, len(d), level)[0], _exact(wins + ties, len(d), level)[1]
    tests = p, flips, 2.0 ** (1 - len(d)), about.sd * _effect(len(d), level, power)
    return Paired(len(d), about.mean, about.sd, about.low, about.high, *tests, (wins + ties / 2) / len(d), low, high)


def holm(p: Any) -> np.ndarray:
    """Holm's adjusted p of a family p (n,); nan stays nan and does not count in the family."""
    adjusted = np.array(p, float)
    order = np.argsort(adjusted)[: (~np.isnan(adjusted)).sum()]  # nan stands last
    # Not statsmodels' multipletests, each call of which collects garbage, 60 ms and more.
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * adjusted[order]), 1)
    return adjusted


def compare(
    rows: pd.DataFrame, baseline: Any, arm: str = "arm", metric: str = "top1", pair: str = "seed", level: float = 0.95
) -> pd.DataFrame:
    """Each arm (value of the column `arm`) against the baseline, over the seeds (values of `pair`) that both have.

    A run (row) without an arm, a pair or a finite metric is left out, and `n` says how many pairs stayed. In a table without
    any true difference a verdict falls with a probability of at most 1 - level.

    A line an arm, in the order in which they first appear: arm, baseline, the fields of `Paired`, p_holm (of p, over the
    lines), and verdict: "higher" or "lower" than the baseline where the interval leaves out zero and p_holm is at most
    1 - level, else "undecided"; "too few", and nan for the numbers, below 2 pairs.
    `UserError`: a column is missing, the baseline is not there, or a pair occurs twice in an arm.
    """
    counted = _counted(rows, [arm, pair], metric)
    found: dict[Any, dict[Any, float]] = {value: {} for value in rows[arm].dropna().tolist()}
    if baseline not in found:
        raise UserError(f"{arm} {baseline!r} is not in the rows; there are {', '.join(map(repr, found))}")
    for value, unit, number in zip(*(counted[name].tolist() for name in (arm, pair, metric)), strict=True):
        if unit in found[value]:
            raise UserError(f"{arm} {value!r} has {pair} {unit!r} twice; leave one of the two runs out")
        found[value][unit] = number
    base, lines = found.pop(baseline), []
    for value, runs in found.items():
        both = [unit for unit in base if unit in runs]
        numbers: dict[str, Any] = {field.name: math.nan for field in fields(Paired)} | {"n": len(both)}
        if len(both) > 1:
            numbers = asdict(paired([runs[unit] for unit in both], [base[unit] for unit in both], level))
        lines.append({"arm": value, "baseline": baseline, **numbers})
    table = pd.DataFrame(lines, columns=["arm", "baseline", *(field.name for field in fields(Paired))])
    table["p_holm"] = holm(table["p"])
    sure = table["p_holm"] <= 1 - level
    table["verdict"] = np.select(
        [table["n"] < 2, sure & (table["low"] > 0), sure & (table["high"] < 0)], ["too few", "higher", "lower"], "undecided"
    )
    return table


def compare_images(correct_a: Any, correct_b: Any, level: float = 0.95, resamples: int = 9999, seed: int = 0) -> ImageTest:
    """Compare two finished models by which of the same images each has right, both (N,), booleans or 0 and 1.

    It tells these two trained models apart, not their designs: another seed's run may turn it round; see `compare`.
    `UserError`: unequal lengths, no images, or values other than 0 and 1.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    a, b = _numbers(correct_a), _numbers(correct_b)
    if len(a) != len(b) or not np.isin([*a, *b], (0, 1)).all():
        raise UserError(f"{len(a)} and {len(b)} values: the same images' outcomes are needed twice, each 0 or 1")
    n, only_a, only_b = len(a), int((a > b).sum()), int((a < b).sum())
    # An image adds -1, 0 or 1 to the difference, so that a resample of the images is a multinomial draw of the three counts.
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    test: Any = mcnemar([[0, only_a], [only_b, 0]], exact=True)  # images on which both agree do not enter it
    return ImageTest(n, only_a, only_b, float(test.pvalue), (only_a - only_b) / n, float(low), float(high))


def effects(rows: pd.DataFrame, factors: list[str], metric: str = "top1", pair: str = "seed", order: int = 2) -> pd.DataFrame:
    """Analysis of variance (type 2) of a factorial study, with the seed (column `pair`) as a block where there are several.

    A run without a factor, a pair or a finite metric is left out. Interactions above `order` count as noise.

    A line a term, largest share first: term ("k", "k x upsample", the block by its name), df, sum_sq, share (of the total
    sum of squares; in a balanced study these and the noise's add up to 1), f, p, p_holm (over all but the block).
    `UserError`: a column is missing, a factor has a single value, combinations were not run, or no noise is left.
    """
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    counted = _counted(rows, [*factors, pair], metric)
    if single := [name for name in factors if counted[name].nunique() < 2]:
        raise UserError(f"fewer than two values of {', '.join(single)} among the {len(counted)} runs counted; leave it out")
    # Under names of their own: one called C, Q or Sum would stand in the way of the formula's.
    own = {name: f"x{i}" for i, name in enumerate([*factors, pair])}
    terms = {f"C({own[pair]}, Sum)": pair} if counted[pair].nunique() > 1 else {}
    for names in (names for size in range(1, order + 1) for names in combinations(factors, size)):
        terms[":".join(f"C({own[name]}, Sum)" for name in names)] = " x ".join(names)
    data = pd.DataFrame({"y": counted[metric]} | {x: counted[name] for name, x in own.items()})
    model: Any = smf.ols(f"y ~ {' + '.join(terms)}", data)
    if np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        raise UserError(f"combinations of {', '.join(factors)} and {pair} were not run; run them, or lower order")
    fit = model.fit()
    if fit.df_resid < 1 or fit.ssr <= ROUNDING**2 * fit.uncentered_tss:
        raise UserError(f"no noise is left in the {len(counted)} runs to test {metric} against; lower order, or add seeds")
    table = anova_lm(fit, typ=2).loc[list(terms), ["df", "sum_sq", "F", "PR(>F)"]].astype({"df": int})
    table.columns = ["df", "sum_sq", "f", "p"]
    table.insert(0, "term", list(terms.values()))
    table.insert(3, "share", table["sum_sq"] / fit.centered_tss)
    table["p_holm"] = holm(table["p"].where(table["term"] != pair))
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def verdict(line: Any, metric: str = "top1", level: float = 0.95) -> str:
    """A line of `compare` (a Series or a dict) as a sentence, in points of percent; its level has to be named again."""
    name = SHOWN.get(metric, metric.replace("_", " "))
    n, against = int(line["n"]), f"{line['arm']} against {line['baseline']}"
    if line["verdict"] == "too few":
        return f"{against}: {n} pair{'s' * (n != 1)} of {name}, too few to compare; 2 are needed."
    low, high = line["low"], line["high"]
    shown = f"p = {line['p_holm']:.2g}" if line["p_holm"] >= 1e-4 else "p < 0.0001"
    points = f"{_points(line['difference'], '+')} points [{_points(low, '+')}, {_points(high, '+')}]"
    said = f"{against}: {points} of {name} over {n} pairs, {shown} after Holm: {line['verdict']}"
    if line["verdict"] != "undecided":
        return f"{said}."
    why = f"the {100 * level:g} % interval holds zero" if low <= 0 <= high else f"p after Holm is above {1 - level:.2g}"
    found = f"a difference of {_points(line['detectable'])} points would have been found 4 times in 5"
    if line["detectable"] == 0:  # such as runs that all stayed at the largest class
        found = "every pair differs by the same, so that these runs do not say what could have been found"
    return f"{said}; {why}, so neither is shown to be better; {found}."


def _points(fraction: float, sign: str = "") -> str:
    """A fraction in points of percent, with one decimal, or two below 0.1."""
    digits = 1 if abs(100 * fraction) >= 0.1 else 2
    return f"{round(100 * fraction, digits) + 0.0:{sign}.{digits}f}"  # + 0.0 makes -0.0 zero


def _numbers(values: Any) -> np.ndarray:
    """Values (n,) as floats, refused where there are none or one is not finite."""
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise UserError(f"finite numbers in one row are needed, at least one; got {x.tolist()!r:.80}")
    return x


def _counted(rows: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    """The rows with a finite metric, as floats, and a value in each named column."""
    if missing := [name for name in (*names, metric) if name not in rows]:
        raise UserError(f"the rows have no column {', '.join(missing)}; there are {', '.join(map(str, rows))}")
    number = np.array(pd.to_numeric(rows[metric], errors="coerce"), float)
    there = np.isfinite(number) & np.array(rows[names].notna().all(axis=1))
    return rows[there].assign(**{metric: number[there]})


def _sign_flip(d: np.ndarray, tiny: float) -> float:
    """The p of the mean of d (n,) among those with the signs flipped; scipy's does not see sums tied but for rounding."""
    n, size = len(d), np.sort(np.abs(d))
    exact = n <= EXACT
    flips = np.arange(2**n)[:, None] >> np.arange(n) & 1 if exact else np.random.default_rng(0).integers(0, 2, (FLIPS, n))
    beyond = np.abs((1 - 2 * flips) @ size) >= abs(d.sum()) - n * tiny
    return float(beyond.mean() if exact else (beyond.sum() + 1) / (FLIPS + 1))


@lru_cache
def _exact(wins: int, n: int, level: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a share."""
    from scipy.stats import binomtest

    low, high = binomtest(wins, n).proportion_ci(level, method="exact")
    return float(low), float(high)


@lru_cache
def _effect(n: int, level: float, power: float) -> float:
    """Least true difference, in deviations of the differences, that n pairs show at 1 - level with this power."""
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestPower

    # One tail, as scipy has nan for the other; and not solve_power, which at 2 or 3 pairs can return where it began.
    missed = lambda effect: TTestPower().power(effect, n, (1 - level) / 2, alternative="larger") - power
    found: Any = brentq(missed, 0, next(2.0**i for i in range(64) if missed(2.0**i) > 0))
    return float(found)
