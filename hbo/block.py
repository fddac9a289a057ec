"""The harmonious bottleneck (HBONet, sections 3.2-3.3, figures 2-4), every part of it a switch.

A switch is one field of `Block`; the code that uses it is below, in this file. The flag, its choices and
help, the W&B key, the column of the result table and the test cases all derive from the field.

Shapes: B images, C channels, H rows, W columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hbo.errors import UserError
from hbo.kernels.depthwise import Depthwise
from hbo.kernels.norm import BatchNorm
from hbo.values import check_types

PIXELSHUFFLE = "b (c i j) h w -> b c (h i) (w j)"


@dataclass(frozen=True)
class Block:
    """The switches of a harmonious bottleneck.

    Raises:
        UserError: a value out of range, with the reason.
    """

    k: int = 1
    """Contraction units in a block, each halving its feature map (table 6's 2x, 4x, 8x are 1, 2, 3); limited
    by the stage's resolution. 0: no contraction, the control."""
    concat_ratio: float = 0.5
    """Share of the output channels that are copied from the input instead of computed, in [0, 1)."""
    upsample: Literal["nearest", "bilinear", "bicubic", "transposed", "pixelshuffle"] = "nearest"
    """How a contracted map is upsampled: nearest in the release, bilinear in the paper's text."""
    residual: bool = True
    """Add the input's first channels to the upsampled map."""
    scheme: Literal["release", "uniform", "paper"] = "release"
    """release: the authors' code, with its exceptions at k = 1; uniform: every k and stride built alike, so
    that only k varies; paper: the release with section 4.1's non-linearities (only the first and the last of
    a cascade)."""
    contract: Literal["dwconv", "avgpool", "maxpool", "blurpool"] = "dwconv"
    """What halves the map in a contraction unit: a strided depthwise convolution, 2x2
    pooling, or a fixed binomial blur."""
    kernel: int = 5
    """Kernel size, odd, of the contraction and of the last depthwise convolution."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.k < 0:
            raise UserError(f"k={self.k}: a block cannot have fewer than 0 contraction units")
        if not 0 <= self.concat_ratio < 1:
            raise UserError(
                f"concat_ratio={self.concat_ratio}: must be in [0, 1); at 1 nothing would be computed"
            )
        if not 1 <= self.kernel <= 255 or self.kernel % 2 == 0:
            raise UserError(
                f"kernel={self.kernel}: must be odd and in [1, 255], so that padding keeps the map's size"
            )


def conv_norm(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution (no bias, padding kernel // 2), batch norm and, with `act`, ReLU6:
    (B, cin, H, W) -> (B, cout, H/s, W/s).
    """
    if groups == cin == cout:
        conv: nn.Conv2d = Depthwise(cin, kernel, stride)
    else:
        conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    # Not in place: training would copy what ReLU6 overwrites, and a full backward hook on the batch norm
    # would be an error.
    return nn.Sequential(conv, BatchNorm(cout), *[nn.ReLU6()] * act)


def halving_pool() -> nn.AvgPool2d:
    """2x2 means: (B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)); at an odd border, the mean of the pixels
    inside the map.
    """
    return nn.AvgPool2d(2, ceil_mode=True)


class BlurPool(nn.Module):
    """Blur with a fixed binomial kernel, then keep every second pixel:
    (B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2)).
    """

    weight: Tensor

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        row = torch.tensor([math.comb(kernel - 1, i) for i in range(kernel)], dtype=torch.float32) / 2 ** (
            kernel - 1
        )
        self.register_buffer("weight", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)
        self.pad = kernel // 2

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        x = F.pad(x, [self.pad] * 4, mode="replicate")  # zeros would darken the border
        return F.conv2d(x, self.weight, stride=2, groups=x.shape[1])


def halve(block: Block, channels: int) -> nn.Module:
    """`Block.contract`: (B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""
    if block.contract == "dwconv":
        return Depthwise(channels, block.kernel, 2)
    if block.contract == "avgpool":
        return halving_pool()
    if block.contract == "maxpool":
        return nn.MaxPool2d(2, ceil_mode=True)
    return BlurPool(channels, block.kernel)


def enlarge(block: Block, channels: int, factor: int) -> nn.Module:
    """`Block.upsample` by an even factor f: (B, C, H, W), or (B, C*f*f, H, W) for pixelshuffle,
    -> (B, C, f*H, f*W).
    """
    if factor == 1:
        return nn.Identity()
    if block.upsample == "pixelshuffle":
        return Rearrange(PIXELSHUFFLE, i=factor, j=factor)
    if block.upsample == "transposed":
        up = nn.ConvTranspose2d(
            channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False
        )
        ramp = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()  # starts as bilinear interpolation
        up.weight.data.copy_(torch.outer(ramp, ramp))
        return up
    return nn.Upsample(
        scale_factor=factor, mode=block.upsample, align_corners=None if block.upsample == "nearest" else False
    )


def take_channels(x: Tensor, start: int, stop: int) -> Tensor:
    """Channels `start` to `stop` - 1 of (B, C, H, W), a view. Its gradient keeps the memory order of x; a
    plain slice's is in NCHW order.
    """
    if (
        torch.compiler.is_compiling()
        or not x.requires_grad
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return x[:, start:stop]
    return x.movedim(1, 3)[..., start:stop].movedim(3, 1)


class HarmoniousBottleneck(nn.Module):
    """One class for every k: contract, transform, expand, concatenate.

    Args:
        cin, cout: channels of input and output.
        stride: 1 or 2.
        expand: t, the hidden width over cin.
        block: the switches; `block.k` is the depth of this block.
        name: its name in error messages, such as "stage 3".

    Raises:
        UserError: in `forward`, a map too small for k halvings.
    """

    def __init__(
        self, cin: int, cout: int, stride: int, expand: int, block: Block, name: str = "block"
    ) -> None:
        super().__init__()
        k, hidden = block.k, expand * cin
        self.k, self.stride, self.name = k, stride, name
        self.factor = 2**k // stride if k else 1  # the upsampling, f
        # If the input has fewer channels than the ratio asks for, copy all of them and compute the rest.
        self.concat_channels = min(math.ceil(block.concat_ratio * cout - 1e-9), cin, cout - 1)
        self.main_channels = main = cout - self.concat_channels
        # The release's exception: no upsampling here, and none of the layers that follow it.
        bare = block.scheme != "uniform" and k == 1 and stride == 2
        self.residual_channels = min(main, cin) if block.residual and not bare else 0

        self.contract = nn.Sequential(
            *[layer for unit in range(1, k + 1) for layer in self._unit(block, unit, cin, hidden)]
        )
        if k == 0:
            self.contract = conv_norm(cin, hidden)
        # The release drops this ReLU6 only in a cascade (k >= 2).
        self.depthwise = conv_norm(
            hidden, hidden, 3, stride if k == 0 else 1, groups=hidden, act=k <= 1 or block.scheme != "release"
        )
        self.project = conv_norm(
            hidden, main * self.factor**2 if block.upsample == "pixelshuffle" else main, act=False
        )
        self.enlarge = enlarge(block, main, self.factor)
        self.smooth = nn.Identity() if bare else conv_norm(main, main, block.kernel, groups=main, act=False)
        self.pool = halving_pool() if stride == 2 else nn.Identity()

    @staticmethod
    def _unit(block: Block, unit: int, cin: int, hidden: int) -> list[nn.Module]:
        """Contraction unit 1..k: halve the map, BN; pointwise to the hidden width, BN, ReLU6."""
        channels = cin if unit == 1 else hidden
        act = unit == 1 or block.scheme != "paper"
        return [halve(block, channels), BatchNorm(channels), *conv_norm(channels, hidden, act=act)]

    def forward(self, x: Float[Tensor, "b cin h w"]) -> Float[Tensor, "b cout hs ws"]:
        if self.k and min(x.shape[2:]) <= 2 ** (self.k - 1):
            h, w = x.shape[2:]
            raise UserError(
                f"{self.name}: its {h} x {w} map is too small for {self.k} contraction"
                f" unit{'s' * (self.k > 1)}, which need more than {2 ** (self.k - 1)} rows and columns: use a"
                f" larger resolution or a smaller k"
            )
        pooled = self.pool(x)  # (B, Cin, H/s, W/s)
        main = self.contract(x)  # (B, t*Cin, H/2^k, W/2^k)
        main = self.depthwise(main)
        main = self.project(main)  # (B, Cmain, H/2^k, W/2^k)
        main = self.enlarge(main)
        # (B, Cmain, H/s, W/s): odd maps grow past their partner.
        main = main[:, :, : pooled.shape[2], : pooled.shape[3]]
        if self.residual_channels:
            joined = take_channels(pooled, 0, self.residual_channels)
            if spare := self.main_channels - self.residual_channels:
                joined = F.pad(joined, (0, 0, 0, 0, 0, spare))
            main = main + joined
        main = self.smooth(main)
        cin = pooled.shape[1]
        drawn = take_channels(pooled, cin - self.concat_channels, cin)
        return torch.cat([drawn, main], dim=1)  # (B, Cout, H/s, W/s)


class InvertedResidual(nn.Module):
    """MobileNetV2's block (expand, depthwise, project): used in some stages of HBONet, and the block that
    ours is compared with.
    """

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = expand * cin
        self.expand = conv_norm(cin, hidden) if expand > 1 else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, 3, stride, groups=hidden)
        self.project = conv_norm(hidden, cout, act=False)
        self.residual_channels = cout if stride == 1 and cin == cout else 0

    def forward(self, x: Float[Tensor, "b cin h w"]) -> Float[Tensor, "b cout hs ws"]:
        main = self.expand(x)  # (B, t*Cin, H, W)
        main = self.depthwise(main)  # (B, t*Cin, H/s, W/s)
        main = self.project(main)  # (B, Cout, H/s, W/s)
        return x + main if self.residual_channels else main
