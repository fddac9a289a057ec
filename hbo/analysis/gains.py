"""The gain of one network over another at the same budget, and whether the gain grows as the budget shrinks.

Both are contrasts of means over runs: a weighted sum, with the t interval of Welch and
Satterthwaite, which does not assume equal variances. A gain has the weights 1 and -1; a trend has
those of a regression line's slope.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hbo.analysis import contrasts
from hbo.analysis.numbers import points

BASELINE = "mobilenetv2"  # the paper's gains are over it


@dataclass(frozen=True)
class Gain:
    """A weighted sum of means over runs: its value, its interval [low, high], and the
    number of runs of each mean.

    The interval is nan if a mean has one run, or if no network's runs vary: neither gives a variance.
    """

    value: float
    low: float
    high: float
    runs: tuple[int, ...]

    def __str__(self) -> str:
        """`+1.3 [-0.4, +3.0] (n=6 and 5)`, in percentage points; `n=6 to 8` for more than two means."""
        interval = "" if math.isnan(self.low) else f" [{points(self.low)}, {points(self.high)}]"
        n = f"{self.runs[0]} and {self.runs[1]}" if len(self.runs) == 2 else _from_to(self.runs)
        return f"{points(self.value)}{interval} (n={n})"


def contrast(groups: Sequence[Any], weights: Sequence[float], level: float = 0.95) -> Gain:
    """The weighted sum of the means of independent groups of runs, each (n,), a metric as a fraction."""
    from scipy import stats

    samples = {str(i): dict(enumerate(map(float, group))) for i, group in enumerate(groups)}
    runs = tuple(map(len, samples.values()))
    asked = contrasts.Contrast("", {str(i): float(weight) for i, weight in enumerate(weights)})
    if min(runs) < 2:
        means = [float(np.mean(list(values.values()))) for values in samples.values()]
        return Gain(
            math.fsum(w * mean for w, mean in zip(weights, means, strict=True)), math.nan, math.nan, runs
        )
    found = contrasts.estimate(samples, asked, paired=False)
    half = float(stats.t.ppf((1 + level) / 2, found.df)) * found.se if found.se else math.nan
    return Gain(found.difference, found.difference - half, found.difference + half, runs)


def gain(a: Any, b: Any, level: float = 0.95) -> Gain:
    """The mean of the runs a (n,) minus that of b (m,), with Welch's t interval."""
    return contrast([a, b], [1, -1], level)


def trend(budgets: Sequence[tuple[float, Any, Any]], level: float = 0.95) -> Gain:
    """How much the gain of a over b grows with each halving of the budget: the slope
    of a line through the gains.

    Args:
        budgets: (multiply-adds, runs of a, runs of b) of each; at least two different budgets.
        level: of the interval.
    """
    slopes = halving([cost for cost, _, _ in budgets])
    groups = [runs for _, a, b in budgets for runs in (a, b)]
    return contrast(groups, [w for slope in slopes for w in (slope, -slope)], level)


def halving(costs: Sequence[float]) -> np.ndarray:
    """Weights that give the least-squares slope of values over halvings of the cost."""
    return contrasts.slope([-math.log2(cost) for cost in costs])


def _from_to(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
