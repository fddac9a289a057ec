"""The network of a classifier, and its costs."""

import torch
from torch import nn

from hbo import nets
from hbo.config import Run, block_of
from hbo.nets import size
from hbo.nets.counting import Cost
from hbo.tasks.classify.mixing import leave_out


def build(run: Run, num_classes: int) -> nets.Pyramid:
    """The run's network, with fresh weights."""
    net = nets.build(run.net, block_of(run), run.width, run.divisor, num_classes, run.first_stage)
    leave_out(net, run.dropout, run.drop_path)
    return net


def classifier_of(net: nn.Module, run: Run, num_classes: int) -> frozenset[str]:
    """Names of the weights whose shape depends on the number of classes, to be initialised if classes differ.

    Args:
        net: the run's network.
        run: all fields.
        num_classes: of `net`.
    """
    with torch.random.fork_rng(devices=[]):  # later draws must not depend on this
        other = build(run, num_classes + 1).state_dict()
    return frozenset(name for name, value in net.state_dict().items() if value.shape != other[name].shape)


def cost(run: Run, num_classes: int) -> Cost:
    """Costs of one image through it."""
    return size.total(
        run.net, block_of(run), run.width, run.divisor, run.first_stage, run.resolution, num_classes
    )
