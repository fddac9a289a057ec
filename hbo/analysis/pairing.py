"""What pairing by seed gains: the correlation of two arms' results over their seeds, and the power of paired
and unpaired tests, with seeds drawn from many runs.

If the results of a seed are correlated, the variance of a difference is smaller than that of two separate
runs, and a paired test finds it with fewer seeds. If they are not, it only loses degrees of freedom. Metrics
and differences are fractions in [0, 1].
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hbo.analysis import contrasts
from hbo.analysis.figures import style
from hbo.analysis.printed import Table
from hbo.errors import UserError

SEEDS = (3, 4, 5, 6, 8, 12, 16, 24)
DRAWS = 4000  # studies drawn for each number of seeds
LEVEL = 0.05
Pairs = Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]]  # title -> two arms, seed -> metric
TESTS = {"paired": "paired t", "unpaired": "Welch's t", "chosen": "as hbo chooses"}


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two arms over the seeds that both have, and its 95 % interval (Fisher's z)."""

    seeds: int
    value: float
    low: float
    high: float


def correlation(a: Mapping[int, float], b: Mapping[int, float]) -> Correlation:
    """The correlation of two arms over their common seeds; each arm is seed -> metric.

    Raises:
        UserError: fewer than four common seeds, or an arm whose runs are all equal.
    """
    from scipy import stats

    x, y = _common(a, b)
    found: Any = stats.pearsonr(x, y)
    low, high = found.confidence_interval(0.95)
    return Correlation(len(x), float(found.statistic), float(low), float(high))


def power(
    a: Mapping[int, float],
    b: Mapping[int, float],
    difference: float,
    seeds: Sequence[int] = SEEDS,
    draws: int = DRAWS,
) -> pd.DataFrame:
    """The share of studies in which each test finds a difference, two-sided at 5 %.

    A study is n seeds of the two arms, drawn with replacement: otherwise studies drawn from few seeds would
    differ too little.
    Both arms are first centred over all seeds, and the difference is then added to one of them.

    Args:
        a: seed -> metric.
        b: of the other arm.
        difference: between the arms; 0 gives the share of false positives.
        seeds: numbers of seeds n.
        draws: studies for each n, with fixed random numbers.

    Returns:
        Columns `seeds`, `paired`, `unpaired`, and `chosen`: the test that `hbo.analysis.contrasts` chooses.

    Raises:
        UserError: as `correlation`; or fewer seeds than the largest n.
    """
    from scipy import stats

    x, y = _common(a, b)
    if len(x) < max(seeds):
        raise UserError(f"{len(x)} common seeds: too few for studies of {max(seeds)}")
    x, y = x - x.mean() + difference, y - y.mean()
    rng, lines = np.random.default_rng(0), []
    for n in seeds:
        chosen = rng.integers(0, len(x), (draws, n))
        one, other = x[chosen], y[chosen]
        with warnings.catch_warnings():  # of a few seeds, all differences may be equal: p is 0, or nan
            warnings.simplefilter("ignore", RuntimeWarning)
            tests: Any = (
                stats.ttest_rel(one, other, axis=1),
                stats.ttest_ind(one, other, axis=1, equal_var=False),
            )
        paired, unpaired = (test.pvalue < LEVEL for test in tests)
        _, p = contrasts.of_seeds(np.stack([one, other], 1))
        pairs = p <= contrasts.PAIRING
        lines.append({
            "seeds": n, "paired": paired.mean(), "unpaired": unpaired.mean(),
            "chosen": np.where(pairs, paired, unpaired).mean(),
        })  # fmt: skip
    return pd.DataFrame(lines)


def drawn(pairs: Pairs) -> Figure:
    """Power to find a difference of a run's standard deviation over the number of seeds, a panel per pair of
    arms; below, the share of false positives.

    Args:
        pairs: title -> two arms, seed -> metric.

    Raises:
        UserError: as `power`.
    """
    with style.styled():
        figure = style.new(4.0)
        axes = figure.subplots(2, len(pairs), sharex=True, sharey="row", height_ratios=(2, 1), squeeze=False)
        looks = style.looks(TESTS)
        for (title, (a, b)), column in zip(pairs.items(), axes.T, strict=True):
            for difference, axis in zip((deviation(a, b), 0.0), column, strict=True):
                found: Any = power(a, b, difference)
                for name, label in TESTS.items():
                    look = looks[name]
                    axis.plot(
                        found["seeds"], 100 * found[name], look.dash, color=look.colour, marker=look.marker,
                        label=label,
                    )  # fmt: skip
            column[0].set_title(f"{title}\n{_said(correlation(a, b))}", fontsize=7, loc="left")
            column[1].axhline(100 * LEVEL, color=style.GREY, lw=0.8, zorder=1)
            column[1].set_xlabel("seeds per arm")
        axes[0, 0].set_ylabel("power, %")
        axes[1, 0].set_ylabel("false positives, %")
        style.legend(figure, axes[0, 0])
    return figure


def table(pairs: Pairs, seeds: Sequence[int] = (3, 6, 12, 24)) -> Table:
    """The same in numbers: a line per pair and number of seeds.

    Raises:
        UserError: as `power`.
    """
    lines = []
    for title, (a, b) in pairs.items():
        sd, r = deviation(a, b), correlation(a, b)
        there, none = (power(a, b, difference, seeds).set_index("seeds") for difference in (sd, 0.0))
        for n in seeds:
            line = {"arms": title, "runs per arm": r.seeds, "correlation": _said(r)}
            line |= {"sd, points": f"{100 * sd:.2f}", "seeds": n}
            for name in TESTS:
                line[f"power, {name}"] = f"{100 * float(there.loc[n, name]):.0f} %"  # pyright: ignore
            for name in TESTS:
                line[f"false, {name}"] = f"{100 * float(none.loc[n, name]):.1f} %"  # pyright: ignore
            lines.append(line)
    note = f"Power to find a difference of one standard deviation, and false positives, at {LEVEL:.0%}."
    return Table("Paired and unpaired tests", pd.DataFrame(lines), [note])


def deviation(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """A run's sample standard deviation, pooled over two arms."""
    return float(np.sqrt(np.mean([np.var(arm, ddof=1) for arm in _common(a, b)])))


def _said(r: Correlation) -> str:
    return f"r = {r.value:.2f} [{r.low:.2f}, {r.high:.2f}]"


def _common(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    shared = sorted(a.keys() & b.keys())
    x, y = (np.array([arm[seed] for seed in shared]) for arm in (a, b))
    if len(shared) < 4:
        raise UserError(f"{len(shared)} common seeds: a correlation needs at least 4")
    if min(np.ptp(x), np.ptp(y)) <= contrasts.ROUNDING:
        raise UserError("all runs of an arm are equal: there is nothing to correlate")
    return x, y
