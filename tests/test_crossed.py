"""The interval over new seeds and new images: its coverage, and its parts."""

import math

import numpy as np
import pytest
from scipy import stats

from hbo.analysis.crossed import crossed
from hbo.errors import UserError


def runs(rng: np.random.Generator, n: int, images: np.ndarray, seeds: float, moved: float) -> np.ndarray:
    """(n, images) outcomes of an arm: right where the effects of seed, image, arm x image and chance sum to
    above zero.
    """
    liking = rng.normal(0, 0.5, len(images))
    return (
        0.8 + moved + rng.normal(0, seeds, (n, 1)) + images + liking + rng.normal(size=(n, len(images))) > 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 6, 10])
@pytest.mark.parametrize("seeds", [0.0, 0.2])
def test_nineteen_of_twenty_intervals_contain_the_true_difference(n, seeds):
    """At least 95 %: with few runs the images' part includes some of the seeds' variance, so the interval is
    conservative.
    """
    rng, spread, hits = np.random.default_rng(n), math.sqrt(1 + seeds**2 + 1.5**2 + 0.5**2), 0
    truth = stats.norm.cdf(1.0 / spread) - stats.norm.cdf(0.8 / spread)
    for _ in range(600):
        images = rng.normal(0, 1.5, 300)
        found = crossed(runs(rng, n, images, seeds, 0.2), runs(rng, n, images, seeds, 0.0))
        hits += found.low <= truth <= found.high
    assert hits / 600 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 600)


def test_the_standard_error_equals_the_scatter_of_resampled_runs_and_images():
    """Against a bootstrap of whole runs and whole images, which counts their interaction three times (Owen
    2007).
    """
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1.5, 200)
    a, b = runs(rng, 40, images, 0.2, 0.2), runs(rng, 40, images, 0.2, 0.0)
    drawn = []
    for _ in range(3000):
        which = rng.integers(0, 200, 200)
        means = [x[rng.integers(0, 40, 40)][:, which].mean() for x in (a, b)]
        drawn.append(means[0] - means[1])
    found = crossed(a, b)
    parts, ours = found.se_seeds**2 + found.se_images**2, ((found.high - found.low) / 2 / 1.96) ** 2
    assert ours < parts  # the sum of the parts counts the interaction twice
    assert 2 * parts - ours == pytest.approx(float(np.var(drawn)), rel=0.1)


def test_without_images_noise_it_is_welch_s():
    a = np.repeat([[True] * 8 + [False] * 2, [True] * 6 + [False] * 4], 1, axis=0)
    # Runs that are right on every image or on none.
    always = np.vstack([np.ones((3, 10), bool), np.zeros((2, 10), bool)])
    found = crossed(always, always[::-1])
    assert found.difference == 0
    assert found.se_images == 0
    assert found.se_seeds == pytest.approx(math.sqrt(2 * 0.3 / 5))
    assert (found.n, found.images) == ((5, 5), 10)
    for other in (a[:, :9], a[:1], a[0]):
        with pytest.raises(UserError):
            crossed(a, other)
