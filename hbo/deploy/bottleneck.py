"""The harmonious bottleneck as deployed: convolutions, upsampling and one addition, on maps in parts and
lanes (`hbo.deploy.lanes`).

A channel that is merely copied ("drawn") stays in its part and lane; if it shares a register with a computed
one, it goes through the last depthwise convolution with an identity kernel. So nothing is sliced, and maps
are concatenated only inside a contraction, at a quarter of the pixels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from hbo.block import BlurPool, HarmoniousBottleneck
from hbo.deploy.lanes import (
    OTHER,
    ZERO,
    Affine,
    Convolution,
    Dense,
    Lanes,
    Layout,
    depthwise,
    edges,
    even,
    fill,
    fold,
    folded,
    places,
    refuse,
    scale_shift,
)

ENLARGE = (nn.Identity, nn.Upsample, nn.ConvTranspose2d, Rearrange)


class Bottleneck(nn.Module):
    """`HarmoniousBottleneck`."""

    def __init__(self, block: HarmoniousBottleneck, source: Layout) -> None:
        super().__init__()
        _check(block)
        units: list[nn.Module] = []
        hidden = source
        if block.k == 0:
            expand = Convolution(block.contract, source, None)
            units.append(expand)
            hidden = expand.target
        else:
            for halve, norm, pointwise in _units(list(block.contract)):
                unit = Unit(halve, norm, pointwise, hidden)
                units.append(unit)
                hidden = unit.target
        self.contract = nn.Sequential(*units)
        conv, affine, act = folded(block.depthwise, each=True)
        self.depthwise = nn.Sequential(depthwise(affine, hidden[0], conv.stride[0]), *[nn.ReLU6()] * act)
        bases, self.pool = source, None
        if block.stride == 2:
            self.pool = Pool(block, source)
            bases = self.pool.target
        pieces = [Piece(block, plan, hidden) for plan in _arrange(block, bases)]
        self.pieces = nn.ModuleList(pieces)
        self.target: Layout = [piece.target for piece in pieces]

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        low = [self.depthwise(self.contract(parts)[0])]
        h, w = parts[0].shape[2:]
        if self.pool is not None:
            parts = self.pool(parts)
            h, w = -(-h // 2), -(-w // 2)
        return [piece(parts, low, (h, w)) for piece in self.pieces]


def _check(block: HarmoniousBottleneck) -> None:
    """Refuse any pooling or upsampling that `HarmoniousBottleneck` does not build."""
    known = {"pool": nn.AvgPool2d if block.stride == 2 else nn.Identity, "enlarge": ENLARGE}
    for name, kinds in known.items():
        if not isinstance(module := getattr(block, name), kinds):
            raise refuse(f"{type(module).__name__} as {name} of {block.name}, which deploy does not know")


def _units(layers: list[nn.Module]) -> Iterator[tuple[nn.Module, nn.BatchNorm2d, nn.Module]]:
    """The contraction units of these layers: the halving layer, its batch norm, and the pointwise `conv_norm`
    after it.
    """
    while layers:
        halve, norm, *layers = layers if len(layers) > 1 else [*layers, nn.Identity()]
        if not isinstance(norm, nn.BatchNorm2d):
            raise refuse(
                f"{type(norm).__name__} after {type(halve).__name__} in a contraction; deploy knows"
                " BatchNorm2d"
            )
        size = 3 if any(isinstance(layer, nn.ReLU6) for layer in layers[2:3]) else 2
        yield halve, norm, nn.Sequential(*layers[:size])
        layers = layers[size:]


class Unit(nn.Module):
    """A contraction unit: halve each part, then a pointwise convolution over all of them."""

    def __init__(self, halve: nn.Module, norm: nn.BatchNorm2d, pointwise: nn.Module, source: Layout) -> None:
        super().__init__()
        conv, affine, act = folded(pointwise)
        if conv.kernel_size != (1, 1) or conv.stride != (1, 1):
            raise refuse(f"{conv} in a contraction where deploy knows a pointwise one")
        at = places(source)
        self.parts = sorted({part for part, _ in at.values()})
        own = [
            tuple(c if at.get(c) == (p, lane) else OTHER for lane, c in enumerate(source[p]))
            for p in self.parts
        ]
        self.halve = nn.ModuleList(Halve(halve, norm, lanes) for lanes in own)
        # It does not commute with batch norm, which goes into the pointwise convolution instead.
        if isinstance(halve, nn.MaxPool2d):
            scale, shift = scale_shift(norm)
            bias = affine.bias + affine.weight[:, :, 0, 0] @ shift
            affine = Affine(affine.weight * scale.view(1, -1, 1, 1), bias)
        # Concatenating small maps is quicker than one convolution for each: ONNX Runtime has no sum of two
        # with a ReLU6 after it.
        self.target = [fill(range(conv.out_channels))]
        self.pointwise = Dense(affine, [sum(own, ())], self.target[0], act=act)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        halved = [halve(parts[p]) for p, halve in zip(self.parts, self.halve, strict=True)]
        return [self.pointwise([torch.cat(halved, 1) if len(halved) > 1 else halved[0]])]


class Halve(nn.Module):
    """A contraction's first step, on one part: pooling or a strided convolution, its batch norm folded where
    it can be.
    """

    def __init__(self, halve: nn.Module, norm: nn.BatchNorm2d, lanes: Lanes) -> None:
        super().__init__()
        scale, shift = scale_shift(norm)
        self.pad, self.odd = 0, False
        if (
            isinstance(halve, nn.Conv2d)
            and halve.groups == halve.in_channels == halve.out_channels
            and halve.stride == (2, 2)
        ):
            self.step = depthwise(fold(halve, norm), lanes, 2)
        elif isinstance(halve, nn.AvgPool2d):
            self.odd = True
            self.step = depthwise(
                Affine(torch.full((len(scale), 1, 2, 2), 0.25) * scale.view(-1, 1, 1, 1), shift), lanes, 2, 0
            )
        elif isinstance(halve, BlurPool):
            self.pad = halve.pad
            self.step = depthwise(Affine(halve.weight.double() * scale.view(-1, 1, 1, 1), shift), lanes, 2, 0)
        elif isinstance(halve, nn.MaxPool2d):
            self.odd = True
            self.step = nn.MaxPool2d(2)
        else:
            raise refuse(f"{type(halve).__name__} halves a map in a contraction, which deploy does not know")

    def forward(self, x: Tensor) -> Tensor:
        if self.pad:
            x = edges(x, self.pad, self.pad, self.pad)
        return self.step(even(x) if self.odd else x)


class Pool(nn.Module):
    """Average 2x2, every second pixel: those parts of `source` that are read, or all of these in one part."""

    def __init__(self, block: HarmoniousBottleneck, source: Layout) -> None:
        super().__init__()
        drawn, joined = roles(block)
        channels, read = input_channels(block), {*drawn, *joined} - {ZERO}
        at = places(source)
        own = [
            tuple(c if c in read and at[c] == (p, i) else ZERO for i, c in enumerate(s))
            for p, s in enumerate(source)
        ]
        self.parts = [p for p, lanes in enumerate(own) if any(c >= 0 for c in lanes)]
        quarter = Affine(torch.full((channels, 1, 2, 2), 0.25), torch.zeros(channels))
        self.pool = nn.ModuleList(depthwise(quarter, own[p], 2, 0) for p in self.parts)
        self.target, self.gather = [own[p] for p in self.parts], None
        whole = fill([*drawn, *joined])
        if _lanes(_arrange(block, [whole])) < _lanes(_arrange(block, self.target)):
            same = Affine(torch.eye(channels).view(channels, channels, 1, 1), torch.zeros(channels))
            self.gather, self.target = Dense(same, self.target, whole), [whole]

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        pooled = [pool(even(parts[p])) for p, pool in zip(self.parts, self.pool, strict=True)]
        return pooled if self.gather is None else [self.gather(pooled)]


class Plan(NamedTuple):
    """A part of a bottleneck's output: what it starts from, and what its lanes then hold."""

    base: int | None  # a part of the (pooled) input
    was: Lanes  # that part's lanes
    main: dict[int, int]  # lane -> computed channel
    drawn: dict[int, int]  # lane -> output channel that the base has there


def _arrange(block: HarmoniousBottleneck, bases: Layout) -> list[Plan]:
    """The parts of the output: each computed channel in the lane of the input channel that joins it."""
    drawn_channels, joined = roles(block)
    main: list[dict[int, int]] = [{} for _ in bases]  # of each part: lane -> computed channel
    left = []
    at = places(bases)
    for m, c in enumerate(joined):
        if c == ZERO:
            left.append(m)
        else:
            part, lane = at[c]
            main[part][lane] = m
    # A drawn channel is taken from a part where nothing is computed, else from a lane where nothing is, else
    # from a part as it was; and where a part is needed as it was, all its channels are taken from that, so
    # that they stay together.
    drawn: list[dict[int, int]] = [{} for _ in bases]
    as_is: list[dict[int, int]] = [{} for _ in bases]
    for o, c in enumerate(drawn_channels):
        spots = [
            (p, lane) for p, lanes in enumerate(bases) for lane, channel in enumerate(lanes) if channel == c
        ]
        part, lane = min(spots, key=lambda s: (bool(main[s[0]]), s[1] in main[s[0]], s))
        (as_is if lane in main[part] else drawn)[part][lane] = o
    for p in range(len(bases)):
        if as_is[p]:
            as_is[p] |= drawn[p]
            drawn[p] = {}
    if left:  # nothing joins these: a lane of zeros where all fit, else a part of their own
        for p, lanes in enumerate(bases):
            free = [lane for lane, c in enumerate(lanes) if c == ZERO and lane not in main[p]]
            if len(free) >= len(left):
                main[p] |= dict(zip(free, left, strict=False))
                left = []
                break
    plans = []
    for p, lanes in enumerate(bases):
        if as_is[p] or (drawn[p] and not main[p]):
            plans.append(Plan(p, lanes, {}, as_is[p] or drawn[p]))
        if main[p]:
            plans.append(Plan(p, lanes, main[p], drawn[p]))
    if left:
        plans.append(Plan(None, fill(left), dict(enumerate(left)), {}))
    return plans


def _lanes(plans: list[Plan]) -> int:
    return sum(len(plan.was) for plan in plans)


class Piece(nn.Module):
    """A part of a bottleneck's output: from a part of its (pooled) input, from the
    contracted map, or from both.
    """

    def __init__(self, block: HarmoniousBottleneck, plan: Plan, hidden: Layout) -> None:
        super().__init__()
        base, was, main, drawn = plan
        self.base, self.project, self.smooth = base, None, None
        self.target: Lanes
        out = lambda m: block.concat_channels + m
        if not main:
            self.target = tuple(drawn.get(lane, OTHER) for lane in range(len(was)))
            return
        lanes = tuple(main.get(lane, ZERO) for lane in range(len(was)))
        _, affine, _ = folded(block.project, act=False)
        if len(affine.bias) != block.main_channels:
            square = block.factor**2
            wide = tuple(m * square + i if m >= 0 else ZERO for m in lanes for i in range(square))
            self.project = Dense(affine, hidden, wide)
            self.enlarge: nn.Module = nn.PixelShuffle(block.factor)
        else:
            self.project = Dense(affine, hidden, lanes)
            self.enlarge = block.enlarge
            if isinstance(block.enlarge, nn.ConvTranspose2d):
                self.enlarge = _transposed(block.enlarge, lanes)
        self.target = tuple(
            out(main[lane]) if lane in main else drawn.get(lane, OTHER) for lane in range(len(was))
        )
        if not isinstance(block.smooth, nn.Identity):
            _, affine, _ = folded(block.smooth, act=False, each=True)
            self.smooth = depthwise(affine, lanes)
            for lane in range(len(was)):
                if lane in drawn:
                    self.smooth.weight.data[
                        lane, 0, affine.weight.shape[2] // 2, affine.weight.shape[3] // 2
                    ] = 1
            self.target = tuple(ZERO if channel == OTHER else channel for channel in self.target)

    def forward(self, bases: list[Tensor], low: list[Tensor], size: tuple[int, int]) -> Tensor:
        if self.project is None:
            assert self.base is not None
            return bases[self.base]
        main = self.enlarge(self.project(low))
        if main.shape[2:] != size:  # odd maps grow past their partner
            main = main[:, :, : size[0], : size[1]]
        if self.base is not None:
            main = main + bases[self.base]
        return main if self.smooth is None else self.smooth(main)


def _transposed(up: nn.ConvTranspose2d, lanes: Lanes) -> nn.ConvTranspose2d:
    size, stride, pad = up.kernel_size[0], up.stride[0], int(up.padding[0])
    new = nn.ConvTranspose2d(
        len(lanes), len(lanes), size, stride, pad, groups=len(lanes), bias=False, dtype=torch.float64
    )
    new.weight.data.zero_()
    for lane, channel in enumerate(lanes):
        if channel >= 0:
            new.weight.data[lane] = up.weight[channel]
    return new


def roles(block: HarmoniousBottleneck) -> tuple[list[int], list[int]]:
    """Input channels that are drawn, and for each computed channel the
    input channel that joins it, or ZERO.
    """
    cin = input_channels(block)
    joined = [*range(block.residual_channels), *[ZERO] * (block.main_channels - block.residual_channels)]
    return [*range(cin - block.concat_channels, cin)], joined


def input_channels(block: HarmoniousBottleneck) -> int:
    """`cin`: of the first batch norm, which follows the first halving, or of the pointwise convolution where
    nothing contracts.
    """
    layers = list(block.contract)
    first: Any = layers[1] if block.k else layers[0]
    return first.num_features if block.k else first.in_channels
