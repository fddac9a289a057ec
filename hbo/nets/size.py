"""Costs of a network of our tables, block by block; each distinct block is built and counted once.

A sweep of a thousand runs has a few dozen distinct blocks, so its costs take seconds; finding a width for a
number of multiply-adds takes about one second. The sums equal `hbo.cost.count` of the whole network.
"""

import math
from dataclasses import replace
from functools import cache

import torch
from torch import nn

from hbo import nets
from hbo.block import Block, conv_norm
from hbo.errors import UserError
from hbo.nets import counting
from hbo.nets.counting import Cost
from hbo.nets.network import make_block
from hbo.nets.tables import FirstStage, PlacedBlock

PAPER = 224, 1000  # the paper's input size and classes for counting
TOLERANCE = 0.03
STEP = 1000  # widths are searched in steps of 1 / 1000
Shape = tuple[int, int, int]


@cache
def total(
    net: str,
    block: Block,
    width: float | None,
    divisor: int | None,
    first_stage: FirstStage,
    resolution: int,
    classes: int,
) -> Cost:
    """Costs of one image through a network.

    Raises:
        UserError: the network cannot be built, or does not support the resolution.
    """
    if net not in nets.TABLES:
        return _whole(net, resolution, classes)
    assert width is not None
    table = nets.table_of(net, first_stage)
    divisor = divisor or nets.published_divisor(net, width)
    parts = nets.layout(table, width, divisor)
    costs = []
    shape: Shape = (3, resolution, resolution)
    cost_, shape = _stem(parts[0].cin, shape)
    costs.append(cost_)
    for part in parts:
        # A block's cost does not depend on these.
        same = part._replace(row=part.row._replace(channels=0, repeats=0, stride=0))
        switches = replace(block, k=min(block.k, part.row.cap)) if part.row.block == "hb" else Block()
        cost_, shape = _block(same, switches, shape)
        costs.append(cost_)
    last = nets.head_channels(table, width, divisor)
    cost_, shape = _head(parts[-1].cout, last, shape)
    costs += [
        cost_,
        Cost(
            macs=last * classes, params=(last + 1) * classes, activation_bytes=4 * classes, elementwise=last
        ),
    ]
    return Cost(*(sum(values) for values in zip(*(vars(c).values() for c in costs), strict=True)))


def matched(
    macs: float, net: str, block: Block, divisor: int, first_stage: FirstStage, width: float | None
) -> float:
    """The width from `width_for`; a width given as well must equal it.

    Raises:
        UserError: as `width_for`; a network with a fixed width; another width is given.
    """
    if net not in nets.TABLES:
        raise UserError(f"match_macs={macs}: {net} has a fixed width; remove it")
    if macs <= 0:
        raise UserError(f"match_macs={macs}: must be positive, in millions")
    nets.check(net, block, None, divisor, first_stage)
    found, _ = width_for(macs, net, block, divisor, first_stage)
    if width not in (None, found):
        raise UserError(f"width={width}: match_macs={macs:g} gives {found}; use one of the two flags")
    return found


@cache
def width_for(
    macs: float, net: str, block: Block, divisor: int, first_stage: FirstStage
) -> tuple[float, float]:
    """The width whose network is nearest to this many million multiply-adds, and their number.

    Raises:
        UserError: no width is within 3 %; names the nearest.
    """
    if not 0 < macs < math.inf:
        raise UserError(f"match_macs={macs}: must be a positive number, in millions")
    count = lambda step: total(net, block, step / STEP, divisor, first_stage, *PAPER).macs / 1e6
    low, high = 1, STEP // 4
    while count(high) < macs:
        low, high = high, 2 * high
        if high > 64 * STEP:
            raise UserError(f"match_macs={macs:g}: more than {net} has at any sensible width")
    while high - low > 1:  # counts never decrease with the width
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < macs else (low, middle)
    nearest = min((low, high), key=lambda step: abs(count(step) - macs))
    reached = count(nearest)
    if abs(reached / macs - 1) > TOLERANCE:
        near = " and ".join(f"{count(step):.1f} (width {step / STEP:g})" for step in (low, high))
        raise UserError(
            f"match_macs={macs:g}: no width of {net} is within {100 * TOLERANCE:.0f} % at divisor {divisor};"
            f" the nearest are {near}; use one of them, or a smaller divisor"
        )
    return nearest / STEP, reached


@cache
def _stem(channels: int, shape: Shape) -> tuple[Cost, Shape]:
    return _count(conv_norm(3, channels, 3, stride=2), shape)


@cache
def _block(part: PlacedBlock, switches: Block, shape: Shape) -> tuple[Cost, Shape]:
    return _count(make_block(part, switches), shape)


@cache
def _head(cin: int, cout: int, shape: Shape) -> tuple[Cost, Shape]:
    return _count(conv_norm(cin, cout), shape)


@cache
def _whole(net: str, resolution: int, classes: int) -> Cost:
    return counting.count(nets.build(net, width=None, num_classes=classes), resolution)["total"]


def _count(module: nn.Module, shape: Shape) -> tuple[Cost, Shape]:
    costs, out = counting.pass_through(module, torch.zeros(1, *shape))
    whole = costs["Global"]
    whole.params = counting.parameters(module)
    return whole, (int(out.shape[1]), int(out.shape[2]), int(out.shape[3]))
