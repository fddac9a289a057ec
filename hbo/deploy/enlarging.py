"""Upsampling as convolutions, for runtimes whose fast backend has no nearest or bicubic resize (XNNPACK).

Each is a transposed convolution over all channels whose weights are zero between different ones. A depthwise
one would do the same with fewer multiplications, but XNNPACK computes it channel by channel, and it takes
many times as long.
"""

import torch
from torch import Tensor, nn

from hbo.deploy.lanes import edges, refuse


class Repeat(nn.Module):
    """Nearest upsampling by f: (B, C, H, W) -> (B, C, f*H, f*W), equal to the bit."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, factor, factor, bias=False, dtype=torch.float64)
        self.up.weight.data.copy_(torch.eye(channels)[:, :, None, None].expand_as(self.up.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Bicubic(nn.Module):
    """Bicubic upsampling by an even f as PyTorch does it (`align_corners=False`, borders
    repeated): rows, then columns.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        at = (torch.arange(4 * factor, dtype=torch.float64) - 1.5 * factor + 0.5) / factor - 0.5
        taps = torch.eye(channels, dtype=torch.float64)[:, :, None] * _cubic(at)
        size, self.cut = 4 * factor, 7 * factor // 2
        self.rows = nn.ConvTranspose2d(
            channels, channels, (size, 1), (factor, 1), bias=False, dtype=torch.float64
        )
        self.columns = nn.ConvTranspose2d(
            channels, channels, (1, size), (1, factor), bias=False, dtype=torch.float64
        )
        self.rows.weight.data.copy_(taps[..., None])
        self.columns.weight.data.copy_(taps[:, :, None])

    def forward(self, x: Tensor) -> Tensor:
        # Cut afterwards: LiteRT's converter knows no such convolution with a padding.
        x = self.rows(edges(x, 2, 2, 2))
        return self.columns(x[:, :, self.cut : -self.cut])[..., self.cut : -self.cut]


class Spread(nn.Module):
    """A depthwise transposed convolution over all channels."""

    def __init__(self, up: nn.ConvTranspose2d) -> None:
        super().__init__()
        channels = up.in_channels
        size, stride, pad = up.kernel_size[0], up.stride[0], int(up.padding[0])
        self.up = nn.ConvTranspose2d(channels, channels, size, stride, pad, bias=False, dtype=torch.float64)
        self.up.weight.data.zero_()
        each = range(channels)
        self.up.weight.data[each, each] = up.weight.detach()[:, 0].double()

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


def _cubic(distance: Tensor, a: float = -0.75) -> Tensor:
    """PyTorch's cubic kernel."""
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def as_convolution(enlarge: nn.Module, channels: int) -> nn.Module:
    """The same upsampling of a map with this many channels, without a resize that XNNPACK leaves out."""
    if isinstance(enlarge, nn.ConvTranspose2d):
        return Spread(enlarge)
    if isinstance(enlarge, nn.Upsample) and enlarge.mode in ("nearest", "bicubic"):
        factor = enlarge.scale_factor
        if not isinstance(factor, (int, float)) or int(factor) != factor or int(factor) % 2:
            raise refuse(f"upsampling by {factor} where deploy knows even factors")
        return (Repeat if enlarge.mode == "nearest" else Bicubic)(channels, int(factor))
    return enlarge
