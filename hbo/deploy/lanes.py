"""Feature maps as parts with lanes, and convolutions between them: what `hbo.deploy` builds networks of.

Runtimes compute channels in blocks of a vector register's size; a map of another size is padded, and is taken
apart and put together again around every slice and concatenation. So here a map is a list of parts, each a
tensor of (B, L, H, W) whose L is a multiple of `LANES`, and a layout says which channel each lane holds.
Taking channels from a map, putting maps together and changing their order are then a matter of the weights of
whatever reads them: nothing is copied.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hbo.errors import UserError

# Float32 numbers in a register of AVX-512, and the block of ONNX Runtime there and on ARM; two registers of
# AVX2.
LANES = 16
ZERO, OTHER = -1, -2  # a lane of zeros; a lane that nobody reads
Lanes = tuple[int, ...]  # the channel in each lane, or one of the above
Layout = list[Lanes]


def refuse(what: str) -> UserError:
    """The error of a network that `hbo.deploy` does not know."""
    return UserError(f"deploy: {what}; hbo.export --plain exports it")


def fill(channels: Iterable[int], lanes: int = LANES) -> Lanes:
    """These channels, then zeros up to a multiple of `lanes`."""
    given = tuple(channels)
    return given + (ZERO,) * (-len(given) % lanes)


def places(layout: Layout) -> dict[int, tuple[int, int]]:
    """Channel -> (part, lane) where it is read; it may lie in others too."""
    found: dict[int, tuple[int, int]] = {}
    for part, lanes in enumerate(layout):
        for lane, channel in enumerate(lanes):
            if channel >= 0:
                found.setdefault(channel, (part, lane))
    return found


class Affine(NamedTuple):
    """A convolution's weight (O, I, kh, kw) and bias (O)."""

    weight: Tensor
    bias: Tensor


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> Affine:
    """A convolution with the batch norm that follows it."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if conv.bias is None else conv.bias.detach().double()
    if norm is None:
        return Affine(weight, bias)
    scale, shift = scale_shift(norm)
    return Affine(weight * scale.view(-1, 1, 1, 1), bias * scale + shift)


def scale_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What batch norm does in evaluation: multiply by the one, add the other."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


class Dense(nn.Module):
    """A convolution over all channels: parts -> one part, each part's share added up.

    Args:
        affine: weight (O, I, kh, kw), bias (O), by channel.
        source: the parts that it reads.
        target: the output channel of each lane of its result; a channel may have several lanes.
        stride, padding: as of `nn.Conv2d`.
        act: whether ReLU6 follows.
    """

    def __init__(
        self,
        affine: Affine,
        source: Layout,
        target: Lanes,
        stride: int = 1,
        padding: int = 0,
        act: bool = False,
    ) -> None:
        super().__init__()
        weight, bias = affine.weight.double(), affine.bias.double()
        out = torch.tensor(target)
        real = (out >= 0).nonzero().flatten()
        self.parts, convs = list[int](), []
        for part, lanes in enumerate(source):
            pairs = [
                (lane, channel)
                for channel, (p, lane) in places(source).items()
                if p == part and channel < weight.shape[1]
            ]
            pairs = [(lane, channel) for lane, channel in pairs if weight[:, channel].any()]
            if not pairs and (convs or part + 1 < len(source)):
                continue
            conv = nn.Conv2d(
                len(lanes),
                len(target),
                weight.shape[-1],
                stride,
                padding,
                bias=not convs,
                dtype=torch.float64,
            )
            conv.weight.data.zero_()
            for lane, channel in pairs:
                conv.weight.data[real, lane] = weight[out[real], channel]
            if conv.bias is not None:
                conv.bias.data.zero_()
                conv.bias.data[real] = bias[out[real]]
            self.parts.append(part)
            convs.append(conv)
        self.convs = nn.ModuleList(convs)
        self.act = nn.ReLU6() if act else nn.Identity()

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        total = None
        for part, conv in zip(self.parts, self.convs, strict=True):
            total = conv(parts[part]) if total is None else total + conv(parts[part])
        return self.act(total)


class Convolution(nn.Module):
    """Convolution, batch norm, perhaps ReLU6: parts -> the requested parts."""

    def __init__(self, block: nn.Module, source: Layout, wish: Layout | None) -> None:
        super().__init__()
        conv, affine, act = folded(block)
        self.target = wish or [fill(range(conv.out_channels))]
        self.convs = nn.ModuleList(
            Dense(affine, source, lanes, conv.stride[0], int(conv.padding[0]), act) for lanes in self.target
        )

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [conv(parts) for conv in self.convs]


def folded(block: nn.Module, act: bool | None = None, each: bool = False) -> tuple[nn.Conv2d, Affine, bool]:
    """The convolution of a `conv_norm`, with its batch norm folded, and whether ReLU6 follows.

    Args:
        block: what must be a `conv_norm`.
        act: whether ReLU6 must follow; None: either.
        each: whether the convolution must be depthwise; if not it must be over all channels.

    Raises:
        UserError: other layers than these.
    """
    layers = list(block.children())
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU6)
    named = ", ".join(type(layer).__name__ for layer in layers) or "nothing"
    fits = len(layers) in ((2, 3) if act is None else (2 + act,))
    if not fits or not all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=False)):
        wanted = "Conv2d, BatchNorm2d" + {None: " and perhaps ReLU6", True: ", ReLU6", False: " alone"}[act]
        raise refuse(f"{named} where deploy knows {wanted}")
    conv, norm = layers[:2]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    if conv.groups != (conv.in_channels if each else 1) or (each and conv.in_channels != conv.out_channels):
        raise refuse(f"{conv} where deploy knows a {'depthwise' if each else 'dense'} convolution")
    return conv, fold(conv, norm), len(layers) == 3


def depthwise(affine: Affine, lanes: Lanes, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution per channel, weight (C, 1, k, k): each lane has its channel's, lanes
    without a channel give zeros.
    """
    weight, bias = affine.weight.double(), affine.bias.double()
    n, size = len(lanes), weight.shape[-1]
    pad = size // 2 if padding is None else padding
    conv = nn.Conv2d(n, n, size, stride, pad, groups=n, dtype=torch.float64)
    conv.weight.data.zero_()
    assert conv.bias is not None
    conv.bias.data.zero_()
    for lane, channel in enumerate(lanes):
        if channel >= 0:
            conv.weight.data[lane] = weight[channel]
            conv.bias.data[lane] = bias[channel]
    return conv


def even(x: Tensor) -> Tensor:
    """Repeat the last row and column of a map with an odd number of them: what pooling 2x2 with ceil averages
    and compares.
    """
    h, w = x.shape[2:]
    return edges(x, 0, h % 2, w % 2) if h % 2 or w % 2 else x


def edges(x: Tensor, before: int, rows: int, columns: int) -> Tensor:
    """Repeat the first row and column `before` times, the last ones as often as is said: a
    padding that every runtime has.
    """
    x = torch.cat([*[x[:, :, :1]] * before, x, *[x[:, :, -1:]] * rows], 2)
    return torch.cat([*[x[..., :1]] * before, x, *[x[..., -1:]] * columns], 3)
