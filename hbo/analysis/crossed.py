"""Two arms on the same images: an interval over new seeds *and* new images, from each run's correct images.

A run's accuracy varies with its seed and with the validation images. Each arm has its own seeds, and images
are shared: a design with crossed random effects. The variance of the difference is the seeds' part (Welch's)
plus the images' part, less the interaction, which both parts contain.
"""

import math
from dataclasses import dataclass

import numpy as np

from hbo.errors import UserError


@dataclass(frozen=True)
class Crossed:
    """Arm a minus arm b. Fractions; standard errors of the difference, for new seeds
    only and for new images only.
    """

    images: int
    n: tuple[int, int]
    difference: float
    low: float
    high: float
    se_seeds: float
    se_images: float


def crossed(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> Crossed:
    """The difference and its interval.

    Args:
        a: (runs, images), booleans: the images that each run classifies correctly; at least 2 runs.
        b: the same for the other arm, on the same images.
        level: of the interval, by t with Satterthwaite's degrees of freedom.

    Raises:
        UserError: different images, or fewer than 2 runs of an arm.
    """
    from scipy.stats import t

    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2 or a.shape[1] < 2:
        raise UserError(
            f"outcomes of {a.shape} and {b.shape}: each arm needs at least two runs on the same images"
        )
    images = a.shape[1]
    seeds = [float(x.mean(1).var(ddof=1)) / len(x) for x in (a, b)]
    both = [_interaction(x) / len(x) / images for x in (a, b)]
    of_images = float((a.mean(0) - b.mean(0)).var(ddof=1)) / images
    variance = max(math.fsum(seeds) + of_images - math.fsum(both), math.fsum(seeds), of_images)
    parts = [(value, len(x) - 1) for value, x in zip(seeds, (a, b), strict=True)] + [
        (max(0.0, of_images - math.fsum(both)), images - 1)
    ]
    spread = math.fsum(value**2 / df for value, df in parts)
    df = math.fsum(value for value, _ in parts) ** 2 / spread if spread else math.inf
    half = float(t.isf((1 - level) / 2, df)) * math.sqrt(variance)
    difference = float(a.mean() - b.mean())
    return Crossed(
        images, (len(a), len(b)), difference, difference - half, difference + half,
        math.sqrt(math.fsum(seeds)), math.sqrt(of_images),
    )  # fmt: skip


def _interaction(x: np.ndarray) -> float:
    """The variance explained neither by runs nor by images; x is (runs, images)."""
    rest = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    return float((rest**2).sum()) / ((len(x) - 1) * (x.shape[1] - 1))
