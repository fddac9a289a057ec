"""Looks at a growing study, and the level of each: alpha spending after O'Brien and
Fleming (Lan and DeMets 1983).

The boundary of a standard Brownian motion, observed at shares of its time, by recursive integration
(Armitage, McPherson and Rowe 1969). A t test uses a look's nominal level.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hbo.analysis.contrasts import Contrast, Judged, Levels, Samples, judge

GRID = 2001  # grid points of a density


def spent(share: float, alpha: float) -> float:
    """The part of a two-sided alpha that may be spent at a share of the runs: on each side
    2 - 2 Phi(z / sqrt(share)), with z for alpha / 4.
    """
    from scipy.stats import norm

    return float(4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(share)))


@lru_cache
def nominal(
    shares: tuple[float, ...], alpha: float = 0.05, spending: Callable[[float, float], float] = spent
) -> tuple[float, ...]:
    """The two-sided level of each look, so that all together have a false-positive probability of alpha.

    Args:
        shares: of the largest number of runs, increasing to 1.
        alpha: of all looks together.
        spending: (share, alpha) -> alpha that may be spent up to this share.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    found: list[float] = []
    # Density of the motion where no boundary was crossed.
    before, gone, density, points = (
        0.0,
        0.0,
        None,
        None,
    )
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
        most = 12 * math.sqrt(share)
        edge: Any = brentq(lambda e: outside(e) - to_spend, 0.0, most, xtol=1e-10)  # noqa: B023
        new = np.linspace(-edge, edge, GRID)
        if density is None or points is None:
            density = norm.pdf(new / step) / step
        else:
            density = np.trapezoid(density * norm.pdf((new[:, None] - points) / step) / step, points, axis=1)
        points, before, gone = new, share, gone + to_spend
        found.append(float(2 * norm.sf(edge / math.sqrt(share))))
    return tuple(found)


def levels_at(look: int, looks: Sequence[int], each: Levels) -> Levels:
    """A line's levels at one of the looks (0 is the first), which are numbers of seeds; `each` are the levels
    of all looks together.

    Equivalence is two one-sided tests; each spends its level like a two-sided test of twice that level.
    """
    shares = tuple(n / looks[-1] for n in looks)
    return Levels(nominal(shares, each.difference)[look], nominal(shares, 2 * each.within)[look] / 2)


def judge_at_looks(
    samples: Samples,
    contrasts: Sequence[Contrast],
    margin: float | None,
    looks: Sequence[int],
    seeds: Sequence[int],
    each: Levels,
) -> list[tuple[Judged, int]]:
    """Each contrast at the first look that decides it, else at the last look that its runs
    have reached; with that look.

    It depends only on the runs: stopping and resuming a sweep leads to the same verdicts. A decision stays,
    whatever seeds follow.

    Args:
        samples: arm -> seed -> its metric.
        contrasts: of one family.
        margin: the largest difference that does not matter, as a fraction; None: no verdict of equivalence.
        looks: numbers of seeds, increasing.
        seeds: the seeds in order, as many as the last look.
        each: a line's levels, for all looks together.

    Returns:
        a line and the index of its look; -1 before the first, with the verdict "too few".
    """
    about = {"looks": tuple(looks), "at_last": levels_at(len(looks) - 1, looks, each)}
    found = [(Judged(one.label, _runs(samples, one), False, "too few", **about), -1) for one in contrasts]
    for look, n in enumerate(looks):
        there = set(seeds[:n])
        reached = {
            arm: {s: v for s, v in runs.items() if s in there}
            for arm, runs in samples.items()
            if there <= runs.keys()
        }
        for i, one in enumerate(contrasts):
            named = {arm for arm, weight in one.weights.items() if weight}
            if found[i][0].verdict in ("undecided", "too few") and named <= reached.keys():
                line = judge(reached, [one], margin, levels_at(look, looks, each))[0]
                found[i] = (replace(line, **about, look=look), look)
    return found


def _runs(samples: Samples, contrast: Contrast) -> tuple[int, int]:
    """The least and the most runs of a contrast's arms."""
    counts = [len(samples.get(arm, {})) for arm, weight in contrast.weights.items() if weight]
    return min(counts, default=0), max(counts, default=0)
