"""Networks as tables: HBONet (table 1), variants with other blocks, MobileNetV2,
and networks of a zoo by name.

    build("hbonet", Block(k=2), width=0.25, divisor=8)      # table 6, "4x"
    build("torchvision:shufflenet_v2_x1_5")                 # another network to compare with

Every network has `forward(x)`: (B, 3, H, W) -> (B, classes), and `pyramid(x)`:
{stride: (B, C, H/stride, W/stride)}, rounded up, or down if the network's own strides do.
"""

import difflib
from typing import get_args

from hbo.block import Block
from hbo.errors import UserError
from hbo.kernels.norm import BatchNorm
from hbo.nets.features import without_linear
from hbo.nets.network import Net
from hbo.nets.pyramid import Pyramid
from hbo.nets.tables import (
    HBONET,
    MOBILENETV2,
    TABLES,
    FirstStage,
    head_channels,
    layout,
    published_divisor,
    round_channels,
    table_of,
)
from hbo.nets.zoo import Rival

__all__ = [
    "HBONET", "MOBILENETV2", "TABLES", "ZOOS", "FirstStage", "Net", "Pyramid", "build", "check",
    "head_channels", "layout",
    "published_divisor", "round_channels", "table_of",
]  # fmt: skip
ZOOS = ("torchvision", "timm", "pytorchcv")
WIDEST, MOST_DIVISOR = 100, 4096  # beyond any network that fits in memory


def check(
    net: str, block: Block, width: float | None, divisor: int | None, first_stage: FirstStage = "release"
) -> None:
    """Validate net, width, divisor and switches before building.

    Raises:
        UserError: an unknown net; a switch that this net would ignore; a k above every stage's cap; a width
            of 0.
    """
    zoo, _, name = net.partition(":")
    if net not in TABLES and (zoo not in ZOOS or not name):
        raise UserError(
            f"net={net!r}: choose from {', '.join(TABLES)}, or torchvision:NAME, timm:NAME,"
            f" pytorchcv:NAME{_near(net)}"
        )
    if first_stage not in get_args(FirstStage):
        raise UserError(f"first_stage={first_stage!r}: choose from {', '.join(get_args(FirstStage))}")
    if net not in TABLES and (first_stage, divisor) != ("release", None):
        odd = f"first_stage={first_stage}" if divisor is None else f"divisor={divisor}"
        said = f"{net} has no table of stages, so this would change nothing; remove {odd.partition('=')[0]}"
        raise UserError(f"{odd}: {said}")
    rows = () if net not in TABLES else table_of(net, first_stage).stages
    caps = [row.cap for row in rows if row.block == "hb"]
    idle = [
        f"{f}={getattr(block, f)}"
        for f in Block.__dataclass_fields__
        if getattr(block, f) != getattr(Block(), f)
    ]
    if not caps and idle:
        raise UserError(
            f"{', '.join(idle)}: {net} has no harmonious bottleneck, so this would change nothing; remove"
            f" {' and '.join(one.partition('=')[0] for one in idle)}"
        )
    if caps and block.k > max(caps):
        raise UserError(
            f"k={block.k}: no stage of {net} can contract more than {max(caps)} times, so the network would"
            f" be that of k={max(caps)}"
        )
    if width is not None and not 0 < width <= WIDEST:
        raise UserError(f"width={width}: must be positive, and at most {WIDEST}")
    if divisor is not None and not 1 <= divisor <= MOST_DIVISOR:
        raise UserError(f"divisor={divisor}: must be at least 1, and at most {MOST_DIVISOR}")


def _near(net: str) -> str:
    """A suggestion: the zoo's network of this name, else the nearest spelling."""
    from torchvision import models

    zoo, colon, rest = net.partition(":")
    if colon and (zoos := difflib.get_close_matches(zoo.lower(), ZOOS, n=1)):
        return f"; did you mean {zoos[0]}:{rest or 'NAME'}?"
    name = net.lower().replace("-", "_")
    if name in models.list_models(module=models):
        return f"; it is torchvision:{name} here"
    near = difflib.get_close_matches(name, TABLES, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def build(
    net: str = "hbonet",
    block: Block = Block(),
    width: float | None = 0.25,
    divisor: int | None = None,
    num_classes: int = 1000,
    first_stage: FirstStage = "release",
) -> Pyramid:
    """A network with fresh weights.

    Args:
        net: a name of `TABLES`, or `torchvision:NAME`, `timm:NAME`, `pytorchcv:NAME` (the last two in the
            extra `zoo`).
        block: the switches of the harmonious bottleneck.
        width: multiplier of every stage's channels; None for a zoo's network, which has a fixed width.
        divisor: channels are rounded to multiples of it; None is the published one for this net and width.
        num_classes: outputs of the classifier; 0: no classifier, and the network returns the classifier's
            input (B, C).
        first_stage: hbonet's first stage as released (inverted residual) or as printed in table 1 (harmonious
            bottleneck).

    Raises:
        UserError: see `check`.
    """
    check(net, block, width, divisor, first_stage)
    if num_classes < 1:
        if num_classes:
            raise UserError(f"num_classes={num_classes}: must not be negative; 0 removes the classifier")
        whole = build(net, block, width, divisor, first_stage=first_stage)
        without_linear(whole)
        return whole
    if net not in TABLES:
        if width not in (None, 0.25):
            raise UserError(f"width={width}: {net} has a fixed width; remove it")
        return Rival(net, num_classes)
    width = 1.0 if width is None else width
    divisor = divisor or published_divisor(net, width)
    if net == "mobilenetv2":
        return mobilenetv2(width, divisor, num_classes)
    return Net(table_of(net, first_stage), block, width, divisor, num_classes)


def mobilenetv2(width: float, divisor: int, num_classes: int) -> Pyramid:
    """Torchvision's, without dropout, as the paper's training has none; with the
    same names in the checkpoint.
    """
    from torchvision.models import MobileNetV2  # also imports torch's compiler, which takes a second

    class MobileNetV2Pyramid(MobileNetV2, Pyramid):
        pass

    return MobileNetV2Pyramid(
        num_classes=num_classes, width_mult=width, round_nearest=divisor, dropout=0.0, norm_layer=BatchNorm
    )
