"""Descriptive statistics, factorial studies, and p adjusted for a family;
contrasts of arms are in `contrasts`.

Metrics are fractions in [0, 1], and so are levels, powers, shares and p. Tests are two-sided. scipy and
statsmodels take a second to import: only the functions that need them do.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hbo.errors import UserError
from hbo.tasks import COLUMNS

ROUNDING = 1e-12  # relative to the largest value; smaller differences are rounding errors
SHOWN = COLUMNS  # a metric's column -> its title


@dataclass(frozen=True)
class Described:
    """A sample: mean, sample standard deviation `sd`, and the t interval [low, high]
    of the mean; nan if n is 1.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    def percent(self) -> "Described":
        """The same of shares in percent, the interval within 0 to 100: as it is printed and drawn."""
        low, high = max(100 * self.low, 0), min(100 * self.high, 100)  # in this order nan stays nan
        return Described(self.n, 100 * self.mean, 100 * self.sd, low, high)


def describe(values: Any, level: float = 0.95) -> Described:
    """Mean, standard deviation and t interval of a sample (n,); `UserError` if it is empty or not finite."""
    from scipy import stats

    x = _numbers(values)
    n, mean = len(x), float(x.mean())
    if n == 1:
        return Described(1, mean, math.nan, math.nan, math.nan)
    sd = float(x.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Described(n, mean, sd, mean - half, mean + half)


def holm(p: Any) -> np.ndarray:
    """Holm's adjusted p of a family p (n,); nan stays nan and does not count in the family."""
    adjusted = np.array(p, float)
    order = np.argsort(adjusted)[: (~np.isnan(adjusted)).sum()]  # nan is last
    # Not statsmodels' multipletests: each call collects garbage, which takes at least 60 ms.
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * adjusted[order]), 1)
    return adjusted


def effects(
    rows: pd.DataFrame, factors: list[str], metric: str = "top1", pair: str = "seed", order: int = 2
) -> pd.DataFrame:
    """Analysis of variance (type 2) of a factorial study, with the seed (column `pair`) as
    a block if there are several.

    Runs without a factor, a pair or a finite metric are excluded. Interactions above `order` count as noise.

    One line per term, largest share first: term ("k", "k x upsample", the block by its name), df, sum_sq,
    share (of the total sum of squares; in a balanced study shares and noise add up to 1), f, p, p_holm (over
    all terms except the block).
    `UserError`: a column is missing, a factor has a single value, combinations were not run, or no residual
    degrees of freedom are left.
    """
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    counted = _counted(rows, [*factors, pair], metric)
    if single := [name for name in factors if counted[name].nunique() < 2]:
        raise UserError(
            f"fewer than two values of {', '.join(single)} among the {len(counted)} runs; remove it"
        )
    # Renamed: columns called C, Q or Sum would clash with the formula's.
    own = {name: f"x{i}" for i, name in enumerate([*factors, pair])}
    terms = {f"C({own[pair]}, Sum)": pair} if counted[pair].nunique() > 1 else {}
    for names in (names for size in range(1, order + 1) for names in combinations(factors, size)):
        terms[":".join(f"C({own[name]}, Sum)" for name in names)] = " x ".join(names)
    data = pd.DataFrame({"y": counted[metric]} | {x: counted[name] for name, x in own.items()})
    model: Any = smf.ols(f"y ~ {' + '.join(terms)}", data)
    if np.linalg.matrix_rank(model.exog) < model.exog.shape[1]:
        raise UserError(
            f"combinations of {', '.join(factors)} and {pair} were not run; run them, or lower order"
        )
    fit = model.fit()
    if fit.df_resid < 1 or fit.ssr <= ROUNDING**2 * fit.uncentered_tss:
        raise UserError(
            f"the {len(counted)} runs leave no residual to test {metric} against; lower order, or add seeds"
        )
    table = anova_lm(fit, typ=2).loc[list(terms), ["df", "sum_sq", "F", "PR(>F)"]].astype({"df": int})
    table.columns = ["df", "sum_sq", "f", "p"]
    table.insert(0, "term", list(terms.values()))
    table.insert(3, "share", table["sum_sq"] / fit.centered_tss)
    table["p_holm"] = holm(table["p"].where(table["term"] != pair))
    return table.sort_values("share", ascending=False, kind="stable", ignore_index=True)


def _numbers(values: Any) -> np.ndarray:
    """Values (n,) as floats; an error if there are none or one is not finite."""
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise UserError(f"needs at least one finite number, in one dimension; got {x.tolist()!r:.80}")
    return x


def _counted(rows: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    """The rows with a finite metric, as floats, and a value in each named column."""
    if missing := [name for name in (*names, metric) if name not in rows]:
        raise UserError(
            f"the rows have no column {', '.join(missing)}; there are {', '.join(map(str, rows))}"
        )
    number = np.array(pd.to_numeric(rows[metric], errors="coerce"), float)
    there = np.isfinite(number) & np.array(rows[names].notna().all(axis=1))
    return rows[there].assign(**{metric: number[there]})
