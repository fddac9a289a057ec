"""Power of a number of seeds, and seeds needed for a difference: for Welch's t and for two one-sided tests.

Differences, standard deviations and margins have the same unit; levels, powers and
shares are fractions in [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST = 1000  # largest number of seeds considered
DRAWS = 2000  # points of the standard deviation's distribution over which a power is averaged


def find(
    difference: float, parts: Sequence[tuple[float, float]], n: int, alpha: float, pairs: bool = False
) -> float:
    """The power to detect a true difference, two-sided at `alpha`.

    Args:
        difference: of the contrast, not zero.
        parts: (weight, standard deviation) of each arm in it; with `pairs`, (1, standard deviation) of the
            per-seed contrasts.
        n: seeds per arm, at least 2.
        alpha: the test's level.
        pairs: whether the contrast is computed per seed.
    """
    se, df = error(parts, n, pairs)
    if se == 0:
        return math.nan
    edge, shift = _edges(alpha / 2, df), abs(difference) / se
    return float((_phi(shift - edge) + _phi(-shift - edge)).mean())


def find_within(
    difference: float,
    parts: Sequence[tuple[float, float]],
    n: int,
    alpha: float,
    margin: float,
    pairs: bool = False,
) -> float:
    """The power of two one-sided tests, each at `alpha`, to show that a
    true difference is within the margin.
    """
    se, df = error(parts, n, pairs)
    if se == 0:
        return math.nan
    room = margin / se - _edges(alpha, df)
    inside = _phi(room - difference / se) - _phi(-room - difference / se)
    return float(inside[room > 0].sum() / len(room))


def _edges(alpha: float, df: float) -> Any:
    """A one-sided t test's critical estimate, in true standard errors, over the distribution of the sample
    standard deviation.

    Given the standard deviation the estimate is normal, so a power is a mean over these values. (scipy's
    noncentral t is nan for large df.)
    """
    from scipy.stats import chi2, t

    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    return t.isf(alpha, df) * np.sqrt(chi2.ppf(shares, df) / df)


def _phi(x: Any) -> Any:
    from scipy.special import ndtr

    return ndtr(x)


def error(parts: Sequence[tuple[float, float]], n: int, pairs: bool = False) -> tuple[float, float]:
    """A contrast's standard error with n seeds per arm, and its degrees of freedom by Satterthwaite."""
    shares = [weight**2 * sd**2 / n for weight, sd in parts]
    total = sum(shares)
    if total == 0:
        return 0.0, math.nan
    return math.sqrt(total), (n - 1) * (1.0 if pairs else total**2 / sum(share**2 for share in shares))


def seeds(power_of: Callable[[int], float], power: float = 0.8, most: int = MOST) -> int | None:
    """The smallest number of seeds, at least 2, with this power; None if `most` seeds have less. The power
    must increase with n.
    """
    if not power_of(most) >= power:
        return None
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high


def detectable(
    parts: Sequence[tuple[float, float]], n: int, alpha: float, power: float = 0.8, pairs: bool = False
) -> float:
    """The smallest true difference that n seeds per arm detect with this power; nan without variance."""
    from scipy.optimize import brentq

    se, _ = error(parts, n, pairs)
    if se == 0:
        return math.nan
    missed = lambda difference: find(difference, parts, n, alpha, pairs) - power
    high = next(se * 2.0**i for i in range(64) if missed(se * 2.0**i) > 0)
    return float(brentq(missed, 0, high))  # pyright: ignore[reportArgumentType]
