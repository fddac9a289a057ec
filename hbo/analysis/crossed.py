"""Two arms on the same images: an interval over new seeds *and* new images, from which images each run has right.

A run's accuracy varies with its seed and with the images that it is reported on. Seeds are each arm's own, images are shared: a
design with crossed random effects. The difference's variance is the seeds' part (Welch's) and the images' part, less what both
hold of their interaction, which would count twice.
"""

import math
from dataclasses import dataclass

import numpy as np

from hbo.errors import UserError


@dataclass(frozen=True)
class Crossed:
    """Arm a less arm b. Fractions; standard errors of the difference, for new seeds alone and for new images alone."""

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
        a: (runs, images), booleans: which of the images each run has right; 2 runs at least.
        b: the same of the other arm, on the same images.
        level: of the interval, by t with Satterthwaite's degrees of freedom.

    Raises:
        UserError: other images, or fewer than 2 runs of an arm.
    """
    from scipy.stats import t

    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2 or a.shape[1] < 2:
        raise UserError(f"outcomes of {a.shape} and {b.shape}: two runs at least of each arm on the same images are needed")
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
        images, (len(a), len(b)), difference, difference - half, difference + half, math.sqrt(math.fsum(seeds)), math.sqrt(of_images)
    )  # fmt: skip


def _interaction(x: np.ndarray) -> float:
    """The variance of what neither a run nor an image explains; x is (runs, images)."""
    rest = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    return float((rest**2).sum()) / ((len(x) - 1) * (x.shape[1] - 1))
