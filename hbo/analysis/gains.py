"""What one network gains over another at the same budget, and whether the gain grows as the budget shrinks.

Both are contrasts of means over runs: a weighted sum, with the t interval of Welch and Satterthwaite, which asks of no two
networks that their runs scatter alike. A gain has the weights 1 and -1; a trend has those of a regression line's slope.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbo.analysis import contrasts

BASELINE = "mobilenetv2"  # the paper's gains are over it
WITHIN = 0.1  # two networks share a budget where their multiply-adds differ by no more than this part of the greater


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of means over runs: its value, its interval [low, high], and the number of runs of each mean.

    The interval is nan where a mean is of one run, or where no run differs from another of its network: neither says how
    much the means would scatter.
    """

    value: float
    low: float
    high: float
    runs: tuple[int, ...]

    def __str__(self) -> str:
        """`+1.3 [-0.4, +3.0] (n=6 and 5)`, in points of percent; `n=6 to 8` of more than two means."""
        interval = "" if math.isnan(self.low) else f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        n = f"{self.runs[0]} and {self.runs[1]}" if len(self.runs) == 2 else _from_to(self.runs)
        return f"{100 * self.value:+.1f}{interval} (n={n})"


def contrast(groups: Sequence[Any], weights: Sequence[float], level: float = 0.95) -> Contrast:
    """The weighted sum of the means of independent groups of runs, each (n,), a metric as a fraction."""
    from scipy import stats

    samples = {str(i): dict(enumerate(map(float, group))) for i, group in enumerate(groups)}
    runs = tuple(map(len, samples.values()))
    asked = contrasts.Contrast("", {str(i): float(weight) for i, weight in enumerate(weights)})
    if min(runs) < 2:
        means = [float(np.mean(list(values.values()))) for values in samples.values()]
        return Contrast(math.fsum(w * mean for w, mean in zip(weights, means, strict=True)), math.nan, math.nan, runs)
    found = contrasts.estimate(samples, asked, paired=False)
    half = float(stats.t.ppf((1 + level) / 2, found.df)) * found.se if found.se else math.nan
    return Contrast(found.difference, found.difference - half, found.difference + half, runs)


def gain(a: Any, b: Any, level: float = 0.95) -> Contrast:
    """What the runs a (n,) reach more than the runs b (m,) on average: Welch's t interval."""
    return contrast([a, b], [1, -1], level)


def trend(budgets: Sequence[tuple[float, Any, Any]], level: float = 0.95) -> Contrast:
    """How much the gain of a over b grows with each halving of the budget: the slope of a line through the gains.

    Args:
        budgets: (multiply-adds, runs of a, runs of b) of each; two different budgets at least.
        level: of the interval.
    """
    slopes = halving([cost for cost, _, _ in budgets])
    groups = [runs for _, a, b in budgets for runs in (a, b)]
    return contrast(groups, [w for slope in slopes for w in (slope, -slope)], level)


def halving(costs: Sequence[float]) -> np.ndarray:
    """Weights whose sum with a value a cost is the slope of the values over halvings of the cost, by least squares."""
    x = -np.log2(np.asarray(costs, float))
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def same_budget(a: float, b: float) -> bool:
    """Whether two costs count as equal."""
    return abs(a - b) <= WITHIN * max(a, b)


def _from_to(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
