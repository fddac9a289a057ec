"""The network of a classifier, and what it costs."""

from hbo import nets
from hbo.config import Run, block_of
from hbo.nets import size
from hbo.nets.counting import Cost


def build(run: Run, num_classes: int) -> nets.Pyramid:
    """The run's network, with fresh weights."""
    return nets.build(run.net, block_of(run), run.width, run.divisor, num_classes, run.first_stage)


def cost(run: Run, num_classes: int) -> Cost:
    """Costs of one image through it."""
    return size.total(run.net, block_of(run), run.width, run.divisor, run.first_stage, run.resolution, num_classes)
