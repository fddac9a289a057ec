"""Looks at a study while it grows, and the level of each: alpha spent as O'Brien and Fleming's boundary would (Lan and DeMets 1983).

The boundary of a standard Brownian motion, seen at shares of its time, by recursive integration (Armitage, McPherson and Rowe
1969). A t test takes a look's nominal level as its own.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from hbo.analysis.contrasts import Levels

GRID = 2001  # points on which a density is kept


def spent(share: float, alpha: float) -> float:
    """Of a two-sided alpha, what may be spent at a share of the runs: on each side 2 - 2 Phi(z / sqrt(share)), z of alpha / 4."""
    from scipy.stats import norm

    return float(4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(share)))


@lru_cache
def nominal(
    shares: tuple[float, ...], alpha: float = 0.05, spending: Callable[[float, float], float] = spent
) -> tuple[float, ...]:
    """The two-sided level of each look, so that all of them together make a false alarm with probability alpha.

    Args:
        shares: of the most runs, rising to 1.
        alpha: of all looks together.
        spending: (share, alpha) -> what may be spent up to there.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    found: list[float] = []
    before, gone, density, points = 0.0, 0.0, None, None  # of the motion's value where no boundary was crossed
    for share in shares:
        to_spend = max(0.0, spending(share, alpha) - gone)
        step = math.sqrt(share - before)
        if density is None or points is None:
            outside = lambda edge, step=step: float(2 * norm.sf(edge / step))
        else:
            held, at = density, points
            outside = lambda edge, step=step, held=held, at=at: float(
                np.trapezoid(held * (norm.sf((edge - at) / step) + norm.cdf((-edge - at) / step)), at)
            )
        edge = brentq(lambda e: outside(e) - to_spend, 0.0, 12 * math.sqrt(share), xtol=1e-10)  # noqa: B023
        new = np.linspace(-edge, edge, GRID)  # pyright: ignore[reportCallIssue, reportArgumentType]
        if density is None or points is None:
            density = norm.pdf(new / step) / step
        else:
            density = np.trapezoid(density * norm.pdf((new[:, None] - points) / step) / step, points, axis=1)
        points, before, gone = new, share, gone + to_spend
        found.append(float(2 * norm.sf(edge / math.sqrt(share))))  # pyright: ignore[reportOperatorIssue]
    return tuple(found)


def levels_at(look: int, looks: Sequence[int], each: Levels) -> Levels:
    """A line's levels at one of the looks (0 the first), which are numbers of seeds; `each` are those of all looks together.

    An equivalence is two one-sided tests, each of which spends its level as a two-sided test of twice that level does.
    """
    shares = tuple(n / looks[-1] for n in looks)
    return Levels(nominal(shares, each.difference)[look], nominal(shares, 2 * each.within)[look] / 2)
