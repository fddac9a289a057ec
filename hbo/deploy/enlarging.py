"""Upsampling for XNNPACK, which has no nearest and no bicubic resize.

Each is a transposed convolution over `group` channels at a time whose weights are zero between different
ones. A depthwise one (group 1) would do the same with fewer multiplications, but XNNPACK computes it channel
by channel, and it takes many times as long. LiteRT has no grouped ones; its nearest is `Copies`.
"""

import torch
from torch import Tensor, nn

from hbo.deploy.lanes import LANES, edges, refuse

FACTORS = (2, 4, 8)  # 2^k for the largest k


class Repeat(nn.Module):
    """Nearest upsampling by f: (B, C, H, W) -> (B, C, f*H, f*W), bit-identical."""

    def __init__(self, channels: int, factor: int, group: int) -> None:
        super().__init__()
        self.up = _transposed(channels, group, (factor, factor), (factor, factor))
        self.up.weight.data.copy_(_each(channels, group)[:, :, None, None].expand_as(self.up.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Copies(nn.Module):
    """Nearest upsampling by f, a power of 2, as concatenations: (B, C, H, W) -> (B, C, f*H, f*W),
    bit-identical.

    LiteRT keeps maps in channels-last order, where a pixel's channels twice in a row are two pixels, so that
    nothing is copied but into the larger map. ExecuTorch would reorder the map around each reshape.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        doublings = factor.bit_length() - 1
        self.steps = [4] * (doublings // 2) + [2] * (doublings % 2)  # XNNPACK concatenates at most five

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        for n in self.steps:
            b, h, w, c = x.shape
            x = torch.cat([x] * n, 3).reshape(b, h, n * w, c)
        for n in self.steps:
            b, h, w, c = x.shape
            x = torch.cat([x] * n, 2).reshape(b, n * h, w, c)
        return x.permute(0, 3, 1, 2)


class Bicubic(nn.Module):
    """Bicubic upsampling by an even f as PyTorch does it (`align_corners=False`, borders
    repeated): rows, then columns.
    """

    def __init__(self, channels: int, factor: int, group: int) -> None:
        super().__init__()
        at = (torch.arange(4 * factor, dtype=torch.float64) - 1.5 * factor + 0.5) / factor - 0.5
        taps = _each(channels, group)[:, :, None] * _cubic(at)
        size, self.cut = 4 * factor, 7 * factor // 2
        self.rows = _transposed(channels, group, (size, 1), (factor, 1))
        self.columns = _transposed(channels, group, (1, size), (1, factor))
        self.rows.weight.data.copy_(taps[..., None])
        self.columns.weight.data.copy_(taps[:, :, None])

    def forward(self, x: Tensor) -> Tensor:
        # Cut afterwards: LiteRT's converter knows no such convolution with a padding.
        x = self.rows(edges(x, 2, 2, 2))
        return self.columns(x[:, :, self.cut : -self.cut])[..., self.cut : -self.cut]


class Spread(nn.Module):
    """A depthwise transposed convolution over groups of channels."""

    def __init__(self, up: nn.ConvTranspose2d, group: int) -> None:
        super().__init__()
        (height, width), (rows, columns) = up.kernel_size, up.stride
        self.up = _transposed(up.in_channels, group, (height, width), (rows, columns), int(up.padding[0]))
        self.up.weight.data.copy_(
            _each(up.in_channels, group)[:, :, None, None] * up.weight.detach().double()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


def _transposed(
    channels: int, group: int, size: tuple[int, int], stride: tuple[int, int], padding: int = 0
) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        channels, channels, size, stride, padding, groups=channels // group, bias=False, dtype=torch.float64
    )


def _each(channels: int, group: int) -> Tensor:
    """(channels, group): 1 where a channel meets itself in its group, else 0."""
    return torch.eye(group, dtype=torch.float64).repeat(channels // group, 1)


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """PyTorch's cubic kernel."""
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def for_xnnpack(enlarge: nn.Module, channels: int, target: str) -> nn.Module:
    """The same upsampling of a map with this many channels, without a resize, which XNNPACK leaves out.

    Args:
        enlarge: the upsampling.
        channels: of the map, a multiple of `LANES`.
        target: litert or executorch.
    """
    group = channels if target == "litert" else LANES
    if isinstance(enlarge, nn.ConvTranspose2d):
        return Spread(enlarge, group)
    if not isinstance(enlarge, nn.Upsample) or enlarge.mode not in ("nearest", "bicubic"):
        return enlarge
    factor = enlarge.scale_factor
    if not isinstance(factor, (int, float)) or factor not in FACTORS:
        raise refuse(f"upsampling by {factor} where deploy knows {', '.join(map(str, FACTORS))}")
    if enlarge.mode == "bicubic":
        return Bicubic(channels, int(factor), group)
    return Copies(int(factor)) if target == "litert" else Repeat(channels, int(factor), group)
