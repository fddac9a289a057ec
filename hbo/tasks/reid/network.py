"""The network of a re-identifier, without its classifier, and its costs."""

from functools import cache
from typing import Any

from torch import nn

from hbo.config import Run
from hbo.nets import counting
from hbo.nets.counting import Cost
from hbo.tasks.classify import network
from hbo.tasks.reid.embedding import Embedding


def build(run: Run, num_classes: int) -> nn.Module:
    """The feature extractor with fresh weights; `num_classes` only concerns the classifier."""
    return Embedding(network.build(run, num_classes), run.bn_neck)


def cost(run: Run, num_classes: int) -> Cost:
    """Costs of one image through it; cached per network."""
    given = {name: getattr(run, name) for name in (*run.NETWORK, "resolution", "aspect")}
    return _cost(tuple(given.items()))


@cache
def _cost(given: tuple[tuple[str, Any], ...]) -> Cost:
    run = Run(**dict(given), data="market1501")
    return counting.count(build(run, 1000), run.size)["total"]
