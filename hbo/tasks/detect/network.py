"""The network of a detector, SSD on the run's feature maps, and its costs."""

from functools import cache
from typing import Any

from torch import nn

from hbo.config import Run
from hbo.nets import counting
from hbo.nets.counting import Cost
from hbo.tasks.classify import network
from hbo.tasks.detect.ssd import Detector


def build(run: Run, num_classes: int) -> nn.Module:
    """The whole detector, with fresh weights."""
    net = network.build(run, num_classes)
    own = (run.head, run.resolution, run.min_scale, run.anchors, run.strides, run.matching)
    return Detector(net, num_classes, *own)


def cost(run: Run, num_classes: int) -> Cost:
    """Costs of one image through the whole detector; cached per network."""
    given = {name: getattr(run, name) for name in (*run.NETWORK, "resolution")}
    return _cost(tuple(given.items()), num_classes)


@cache
def _cost(given: tuple[tuple[str, Any], ...], num_classes: int) -> Cost:
    run = Run(**dict(given), data="voc")
    return counting.count(build(run, num_classes), run.resolution)["total"]
