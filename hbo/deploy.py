"""deploy(model): the same function of its input with less to do at every image, for export.

Batch norm is folded into convolutions. What is left of a harmonious bottleneck besides its convolutions is upsampling and
one addition: channels that are merely drawn stay where they are, in parts and lanes of their own (see `hbo.lanes`), or go
through the last depthwise convolution with a kernel that changes nothing where they share a register with others.
Pooling is a convolution too, as runtimes have quick ones.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbo.block import BlurPool, HarmoniousBottleneck, InvertedResidual
from hbo.errors import UserError
from hbo.lanes import OTHER, ZERO, Affine, Dense, Lanes, Layout, depthwise, even, fill, fold, places, scale_shift
from hbo.nets import Net


def deploy(model: nn.Module) -> nn.Module:
    """A network that gives the model's logits, without batch norm, slices and concatenations; the model is left as it is.

    Args:
        model: a network of `hbo.nets.build`; of one from a zoo only batch norm is folded.

    Raises:
        UserError: a network of a zoo whose code cannot be traced.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    with torch.no_grad():
        deployed = _deploy(model)
    return deployed.eval().requires_grad_(False)


def _deploy(model: nn.Module) -> nn.Module:
    if isinstance(model, Net):
        return Deployed([*model.features, model.head], model.classifier)
    from torchvision.models import MobileNetV2

    if isinstance(model, MobileNetV2):
        blocks = [_ours(block) for block in model.features]
        return Deployed(blocks, model.classifier[-1])  # pyright: ignore
    from torch.fx.experimental.optimization import fuse

    try:
        return fuse(model)
    except Exception as error:  # whatever the tracer says of code that it cannot follow
        raise UserError(
            f"deploy: {type(model).__name__} cannot be traced ({str(error).splitlines()[0]}); --plain exports it"
        ) from None


def _ours(block: nn.Module) -> nn.Module:
    """Torchvision's inverted residual as ours; what is none stays."""
    inner = getattr(block, "conv", None)
    if inner is None:
        return block
    *first, project, norm = inner
    expand = first[0] if len(first) == 2 else nn.Identity()
    own = InvertedResidual(1, 1, 1, 1)
    own.expand, own.depthwise, own.project = expand, first[-1], nn.Sequential(project, norm)  # pyright: ignore
    own.residual_channels = project.out_channels if block.use_res_connect else 0
    return own


class Deployed(nn.Module):
    """Stem, blocks and head, each from parts to parts; global average pool; linear classifier."""

    def __init__(self, blocks: Sequence[nn.Module], classifier: nn.Linear) -> None:
        super().__init__()
        layout: Layout = [(0, 1, 2)]
        built = []
        for i, block in enumerate(blocks):
            new = _build(block, layout, _wish(blocks[i + 1 :]))
            layout = new.target  # pyright: ignore
            built.append(new)
        self.blocks = nn.ModuleList(built)
        (lanes,) = layout
        self.classifier = nn.Linear(len(lanes), classifier.out_features)
        self.classifier.weight.data.zero_()
        for channel, (_, lane) in places(layout).items():
            self.classifier.weight.data[:, lane] = classifier.weight[:, channel]
        self.classifier.bias.data.copy_(classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for block in self.blocks:
            parts = block(parts)
        return self.classifier(F.avg_pool2d(parts[0], parts[0].shape[2:]).flatten(1))


def _build(block: nn.Module, source: Layout, wish: Layout | None) -> nn.Module:
    if isinstance(block, HarmoniousBottleneck):
        return Bottleneck(block, source)
    if isinstance(block, InvertedResidual):
        return Inverted(block, source, wish)
    return Convolution(block, source, wish)


def _wish(after: Sequence[nn.Module]) -> Layout | None:
    """The layout that spares the next bottleneck a copy, where its input can be made in any; None if it does not care."""
    block = after[0] if after else None
    if isinstance(block, InvertedResidual) and block.residual_channels:
        return _wish(after[1:])  # its output has the layout of its input
    if not isinstance(block, HarmoniousBottleneck) or block.stride == 2 or not block.residual_channels:
        return None
    drawn, joined = _roles(block)
    rest = [c for c in range(_channels(block)) if c not in drawn and c not in joined]
    if drawn and _snug(len(drawn), len(joined)):
        return [fill(drawn), fill([*joined, *rest])]
    return [fill([*drawn, *joined, *rest])]


def _roles(block: HarmoniousBottleneck) -> tuple[list[int], list[int]]:
    """Input channels that are drawn, and for each computed channel the input channel that joins it, or ZERO."""
    cin = _channels(block)
    joined = [*range(block.residual_channels), *[ZERO] * (block.main_channels - block.residual_channels)]
    return [*range(cin - block.concat_channels, cin)], joined


def _snug(*sizes: int) -> bool:
    """Whether parts of these channels have as few lanes as one part of all of them."""
    return sum(len(fill(range(size))) for size in sizes) <= len(fill(range(sum(sizes))))


def _channels(block: HarmoniousBottleneck) -> int:
    """Of the input."""
    first = next(m for m in block.contract.modules() if isinstance(m, nn.Conv2d))
    norms = [m for m in block.contract if isinstance(m, nn.BatchNorm2d)]
    return norms[0].num_features if block.k else first.in_channels


class Convolution(nn.Module):
    """Convolution, batch norm, perhaps ReLU6: parts -> the parts wished for."""

    def __init__(self, block: nn.Module, source: Layout, wish: Layout | None) -> None:
        super().__init__()
        conv, affine, act = _parts(block)
        self.target = wish or [fill(range(conv.out_channels))]
        self.convs = nn.ModuleList(Dense(affine, source, lanes, conv.stride[0], conv.padding[0], act) for lanes in self.target)  # pyright: ignore

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [conv(parts) for conv in self.convs]


def _parts(block: nn.Module) -> tuple[nn.Conv2d, Affine, bool]:
    """The convolution of a `conv_norm`, with its batch norm folded, and whether ReLU6 follows."""
    conv, norm, *act = block.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    return conv, fold(conv, norm), bool(act)


class Inverted(nn.Module):
    """`InvertedResidual`: expand, depthwise, project, each part of the input added to what is computed for it."""

    def __init__(self, block: InvertedResidual, source: Layout, wish: Layout | None) -> None:
        super().__init__()
        self.expand = None
        hidden = source
        if not isinstance(block.expand, nn.Identity):
            self.expand = Convolution(block.expand, source, None)
            hidden = self.expand.target
        conv, affine, _ = _parts(block.depthwise)
        self.depthwise = nn.ModuleList(nn.Sequential(depthwise(affine, lanes, conv.stride[0]), nn.ReLU6()) for lanes in hidden)
        self.residual = bool(block.residual_channels)
        self.project = Convolution(block.project, hidden, source if self.residual else wish)
        self.target = self.project.target

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        hidden = parts if self.expand is None else self.expand(parts)
        hidden = [conv(part) for conv, part in zip(self.depthwise, hidden, strict=True)]
        main = self.project(hidden)
        return [part + m for part, m in zip(parts, main, strict=True)] if self.residual else main


class Halve(nn.Module):
    """A contraction's first step, on one part: pooling or a strided convolution, its batch norm folded where it can be."""

    def __init__(self, halve: nn.Module, norm: nn.BatchNorm2d, lanes: Lanes) -> None:
        super().__init__()
        scale, shift = scale_shift(norm)
        self.pad, self.odd = 0, False
        if isinstance(halve, nn.Conv2d):
            self.step = depthwise(fold(halve, norm), lanes, 2)
        elif isinstance(halve, nn.AvgPool2d):
            self.odd = True
            self.step = depthwise(Affine(torch.full((len(scale), 1, 2, 2), 0.25) * scale.view(-1, 1, 1, 1), shift), lanes, 2, 0)
        elif isinstance(halve, BlurPool):
            self.pad = halve.pad
            self.step = depthwise(Affine(halve.weight.double() * scale.view(-1, 1, 1, 1), shift), lanes, 2, 0)
        else:
            self.odd = True
            self.step = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad:
            x = F.pad(x, [self.pad] * 4, mode="replicate")
        return self.step(even(x) if self.odd else x)


class Unit(nn.Module):
    """A contraction unit: halve each part, then a pointwise convolution over all of them."""

    def __init__(self, halve: nn.Module, norm: nn.BatchNorm2d, pointwise: nn.Module, source: Layout) -> None:
        super().__init__()
        conv, affine, act = _parts(pointwise)
        at = places(source)
        self.parts = sorted({part for part, _ in at.values()})
        own = [tuple(c if at.get(c) == (p, lane) else OTHER for lane, c in enumerate(source[p])) for p in self.parts]
        self.halve = nn.ModuleList(Halve(halve, norm, lanes) for lanes in own)
        if isinstance(halve, nn.MaxPool2d):  # does not commute with batch norm: the pointwise convolution takes it up
            scale, shift = scale_shift(norm)
            bias = affine.bias + affine.weight[:, :, 0, 0] @ shift
            affine = Affine(affine.weight * scale.view(1, -1, 1, 1), bias)
        # Small maps side by side are quicker than a convolution each: ONNX Runtime has no sum of two with a ReLU6 after it.
        self.pointwise = Dense(affine, [sum(own, ())], fill(range(conv.out_channels)), act=act)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        halved = [halve(parts[p]) for p, halve in zip(self.parts, self.halve, strict=True)]
        return [self.pointwise([torch.cat(halved, 1) if len(halved) > 1 else halved[0]])]


class Pool(nn.Module):
    """Average 2x2, every second pixel: those parts of `source` that are read, or all of these in one part."""

    def __init__(self, block: HarmoniousBottleneck, source: Layout) -> None:
        super().__init__()
        drawn, joined = _roles(block)
        channels, read = _channels(block), {*drawn, *joined} - {ZERO}
        at = places(source)
        own = [tuple(c if c in read and at[c] == (p, i) else ZERO for i, c in enumerate(s)) for p, s in enumerate(source)]
        self.parts = [p for p, lanes in enumerate(own) if any(c >= 0 for c in lanes)]
        quarter = Affine(torch.full((channels, 1, 2, 2), 0.25), torch.zeros(channels))
        self.pool = nn.ModuleList(depthwise(quarter, own[p], 2, 0) for p in self.parts)
        self.target, self.gather = [own[p] for p in self.parts], None
        whole = fill([*drawn, *joined])
        if len(whole) < sum(map(len, self.target)) + len(fill(joined)):
            same = Affine(torch.eye(channels).view(channels, channels, 1, 1), torch.zeros(channels))
            self.gather, self.target = Dense(same, self.target, whole), [whole]

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        pooled = [pool(even(parts[p])) for p, pool in zip(self.parts, self.pool, strict=True)]
        return pooled if self.gather is None else [self.gather(pooled)]


class Piece(nn.Module):
    """A part of a bottleneck's output: from a part of its (pooled) input, from the contracted map, or from both."""

    def __init__(
        self,
        block: HarmoniousBottleneck,
        base: int | None,
        was: Lanes,
        hidden: Layout,
        main: dict[int, int],
        drawn: dict[int, int],
    ) -> None:
        """`main`: lane -> computed channel; `drawn`: lane -> output channel that the base has there."""
        super().__init__()
        self.base, self.project, self.smooth = base, None, None
        out = lambda m: block.concat_channels + m
        if not main:
            self.target = tuple(drawn.get(lane, OTHER) for lane in range(len(was)))
            return
        lanes = tuple(main.get(lane, ZERO) for lane in range(len(was)))
        _, affine, _ = _parts(block.project)
        self.factor = block.factor
        self.shuffle = len(affine.bias) != block.main_channels
        if self.shuffle:
            square = self.factor**2
            lanes_wide = tuple(m * square + i if m >= 0 else ZERO for m in lanes for i in range(square))
            self.project = Dense(affine, hidden, lanes_wide)
            self.enlarge = nn.PixelShuffle(self.factor)
        else:
            self.project = Dense(affine, hidden, lanes)
            self.enlarge = block.enlarge
            if isinstance(block.enlarge, nn.ConvTranspose2d):
                self.enlarge = _transposed(block.enlarge, lanes)
        self.target = tuple(out(main[lane]) if lane in main else drawn.get(lane, OTHER) for lane in range(len(was)))
        if not isinstance(block.smooth, nn.Identity):
            _, affine, _ = _parts(block.smooth)
            self.smooth = depthwise(affine, lanes)
            for lane in range(len(was)):
                if lane in drawn:
                    self.smooth.weight.data[lane, 0, affine.weight.shape[2] // 2, affine.weight.shape[3] // 2] = 1
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
    new = nn.ConvTranspose2d(len(lanes), len(lanes), up.kernel_size, up.stride, up.padding, groups=len(lanes), bias=False)  # pyright: ignore
    new.weight.data.zero_()
    for lane, channel in enumerate(lanes):
        if channel >= 0:
            new.weight.data[lane] = up.weight[channel]
    return new


class Bottleneck(nn.Module):
    """`HarmoniousBottleneck`."""

    def __init__(self, block: HarmoniousBottleneck, source: Layout) -> None:
        super().__init__()
        units: list[nn.Module] = []
        hidden = source
        if block.k == 0:
            units.append(Convolution(block.contract, source, None))
            hidden = units[0].target
        else:
            layers = list(block.contract)
            size = len(layers) // block.k
            starts = [i for i, layer in enumerate(layers) if i + 1 < len(layers) and isinstance(layers[i + 1], nn.BatchNorm2d)][
                ::2
            ]
            for i in starts:
                halve, norm, conv, conv_norm, *rest = layers[i:]
                act = [m for m in rest[:1] if isinstance(m, nn.ReLU6)]
                units.append(Unit(halve, norm, nn.Sequential(conv, conv_norm, *act), hidden))  # pyright: ignore
                hidden = [fill(range(conv.out_channels))]  # pyright: ignore
            del size
        self.contract = nn.Sequential(*units)
        conv, affine, act = _parts(block.depthwise)
        self.depthwise = nn.Sequential(depthwise(affine, hidden[0], conv.stride[0]), *[nn.ReLU6()] * act)  # pyright: ignore
        bases, self.pool = source, None
        if block.stride == 2:
            self.pool = Pool(block, source)
            bases = self.pool.target
        self.pieces = nn.ModuleList(_arrange(block, bases, hidden))  # pyright: ignore
        self.target: Layout = [piece.target for piece in self.pieces]  # pyright: ignore

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        low = [self.depthwise(self.contract(parts)[0])]
        h, w = parts[0].shape[2:]
        if self.pool is not None:
            parts = self.pool(parts)
            h, w = -(-h // 2), -(-w // 2)
        return [piece(parts, low, (h, w)) for piece in self.pieces]


def _arrange(block: HarmoniousBottleneck, bases: Layout, hidden: Layout) -> list[Piece]:
    """The parts of the output: each computed channel in the lane of the input channel that joins it."""
    drawn_channels, joined = _roles(block)
    main: list[dict[int, int]] = [{} for _ in bases]  # of each part: lane -> computed channel
    left = []
    at = places(bases)
    for m, c in enumerate(joined):
        if c == ZERO:
            left.append(m)
        else:
            part, lane = at[c]
            main[part][lane] = m
    # A drawn channel is taken from a part where nothing is computed, else from a lane where nothing is, else from a part as it was.
    drawn: list[dict[int, int]] = [{} for _ in bases]
    as_is: list[dict[int, int]] = [{} for _ in bases]
    for o, c in enumerate(drawn_channels):
        spots = [(p, lane) for p, lanes in enumerate(bases) for lane, channel in enumerate(lanes) if channel == c]
        part, lane = min(spots, key=lambda s: (bool(main[s[0]]), s[1] in main[s[0]], s))
        (as_is if lane in main[part] else drawn)[part][lane] = o
    if left:  # nothing joins these: a lane of zeros where all fit, else a part of their own
        for p, lanes in enumerate(bases):
            free = [lane for lane, c in enumerate(lanes) if c == ZERO and lane not in main[p]]
            if len(free) >= len(left):
                main[p] |= dict(zip(free, left, strict=False))
                left = []
                break
    pieces = []
    for p, lanes in enumerate(bases):
        if as_is[p] or (drawn[p] and not main[p]):
            pieces.append(Piece(block, p, lanes, hidden, {}, as_is[p] | ({} if main[p] else drawn[p])))
        if main[p]:
            pieces.append(Piece(block, p, lanes, hidden, main[p], drawn[p]))
    if left:
        lanes = fill(left)
        pieces.append(Piece(block, None, lanes, hidden, dict(enumerate(left)), {}))
    return pieces
