"""Networks as tables: HBONet (table 1), its parts exchanged, MobileNetV2, and any rival by name.

    build("hbonet", Block(k=2), width=0.25, divisor=8)      # table 6, "4x"
    build("torchvision:shufflenet_v2_x1_5")                 # a rival beside it

Every network has `forward(x)`: (B, 3, H, W) -> (B, classes), and `pyramid(x)`: {stride: (B, C, H/stride, W/stride)}, rounded
up, or down where the network's own steps do.
"""

import copy
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbo.block import Block, HarmoniousBottleneck, InvertedResidual, conv_norm
from hbo.errors import UserError, first_line
from hbo.norm import BatchNorm


class Row(NamedTuple):
    """A stage: `repeats` blocks, the first at `stride`; `cap` is the most contraction units that its resolution allows."""

    block: Literal["ir", "hb", "conv"]  # inverted residual, harmonious bottleneck, 1x1 convolution
    expand: int
    channels: int
    repeats: int
    stride: int
    cap: int


class Table(NamedTuple):
    stages: tuple[Row, ...]
    head: int  # channels of the last 1x1 convolution at width 1 and below
    divisors: dict[float, int]  # width -> divisor of the published models, where it is not 8


# fmt: off
HBONET = Table((  # table 1 as released
    #   block  t    c  n  s  cap      output at 224
    Row("ir",   1,  20, 1, 1, 3),  # 112; printed as a harmonious bottleneck
    Row("hb",   2,  36, 1, 1, 3),  # 112
    Row("hb",   2,  72, 3, 2, 3),  # 56
    Row("hb",   2,  96, 4, 2, 2),  # 28
    Row("hb",   2, 192, 4, 2, 1),  # 14
    Row("hb",   2, 288, 1, 1, 1),  # 14
    Row("conv", 1, 144, 1, 1, 0),  # 14
    Row("ir",   6, 200, 2, 2, 0),  # 7
    Row("ir",   6, 400, 1, 1, 0),  # 7
), head=1600, divisors={0.1: 4, 0.25: 2, 0.5: 2})

MOBILENETV2 = Table((  # table 2 of MobileNetV2; the caps are those of HBONet at the same resolution
    Row("ir",   1,  16, 1, 1, 3),  # 112
    Row("ir",   6,  24, 2, 2, 3),  # 56
    Row("ir",   6,  32, 3, 2, 2),  # 28
    Row("ir",   6,  64, 4, 2, 1),  # 14
    Row("ir",   6,  96, 3, 1, 1),  # 14
    Row("ir",   6, 160, 3, 2, 0),  # 7: too small to contract
    Row("ir",   6, 320, 1, 1, 0),  # 7
), head=1280, divisors={0.1: 4})
# fmt: on


def _exchange(table: Table, block: Literal["ir", "hb"], where: Callable[[Row], bool]) -> Table:
    return table._replace(stages=tuple(r._replace(block=block) if where(r) else r for r in table.stages))


TABLES = {
    "hbonet": HBONET,
    "hbonet_ir": _exchange(HBONET, "ir", lambda row: row.block == "hb"),
    "mobilenetv2": MOBILENETV2,
    "mobilenetv2_hbo": _exchange(MOBILENETV2, "hb", lambda row: row.repeats > 1),  # its residual stages
}
FirstStage = Literal["release", "paper"]
ZOOS = ("torchvision", "timm", "pytorchcv")


@dataclass(frozen=True)
class Built:
    """What a block really got, where the input's channels or the stage's cap bound the switches."""

    stage: int  # of table 1
    block: str
    stride: int
    cin: int
    cout: int
    depth: int
    concat_channels: int
    residual_channels: int


class Pyramid(nn.Module):
    """Adds `pyramid` to any network: at each stride the last map before the network steps down further.

    For MobileNetV2 and HBONet that is, at 16, the expansion layer of the first block of stride 32, and at 32 the head's
    convolution, as SSD takes them (section 4.2).
    """

    def pyramid(self, x: Float[Tensor, "b 3 h w"]) -> dict[int, Tensor]:
        """Feature maps by stride.

        Raises:
            UserError: the network has no maps of strides 16 and 32, or none at this size.
        """
        if "_strides" not in self.__dict__:
            self.__dict__["_strides"] = _find_strides(self)
        maps: dict[int, Tensor] = {}
        size = tuple(x.shape[2:])
        hooks = [
            self.get_submodule(name).register_forward_hook(lambda _m, _i, out, s=stride: _keep(maps, s, size, out))
            for stride, name in self.__dict__["_strides"].items()
        ]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        if missing := sorted({16, 32} - maps.keys()):
            raise UserError(
                f"resolution={' x '.join(map(str, size))}: {type(self).__name__} has no map of stride {missing[0]} there;"
                " take a multiple of 32"
            )
        return maps


def _keep(maps: dict[int, Tensor], stride: int, size: tuple[int, ...], out: Any) -> None:
    """Keep a map of that stride, rounded up or down as the network does: a module may be called again at another stride."""
    if not isinstance(out, Tensor) or out.ndim != 4:
        return
    if all(n // stride <= found <= -(-n // stride) for n, found in zip(size, out.shape[2:], strict=True)):
        maps[stride] = out


def _find_strides(net: nn.Module) -> dict[int, str]:
    """{stride: name of the last module whose output has that stride}, seen in a forward pass on the meta device."""
    net = copy.deepcopy(net).to("meta").eval()
    size = (224, 288)  # 7 x 9 at stride 32: pooled maps of 1 x 1 are not taken for features
    sizes = {tuple(-(-n // stride) for n in size): stride for stride in (2, 4, 8, 16, 32)}
    found: dict[int, str] = {}

    def note(name: str, out: object) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and tuple(out.shape[2:]) in sizes:
            found[sizes[tuple(out.shape[2:])]] = name

    for name, module in net.named_modules():
        if name:
            module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out))
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, *size, device="meta"))
    except UserError:
        raise
    except Exception as error:  # a rival's own words
        raise UserError(
            f"{type(net).__name__} takes no input of 224 x 288, so it has no pyramid ({first_line(error)})"
        ) from None
    if not {16, 32} <= found.keys():
        raise UserError(f"{type(net).__name__} has no feature maps of stride 16 and 32, so no pyramid; it has {sorted(found)}")
    return found


class Net(Pyramid):
    """A stage table built: stem, blocks, head, global average pool, linear classifier."""

    def __init__(self, table: Table, block: Block, width: float, divisor: int, num_classes: int) -> None:
        super().__init__()
        parts = layout(table, width, divisor)
        blocks: list[nn.Module] = [conv_norm(3, parts[0].cin, 3, stride=2)]
        self.block = block
        self.labels, self.built = ["stem"], list[Built]()
        for part in parts:
            new = make_block(part, block)
            blocks.append(new)
            self.labels.append(f"stage {part.stage}")
            if part.row.block != "conv":
                got = [getattr(new, name, 0) for name in ("k", "concat_channels", "residual_channels")]
                self.built.append(Built(part.stage, part.row.block, part.stride, part.cin, part.cout, *got))
        self.features = nn.Sequential(*blocks)
        last = head_channels(table, width, divisor)
        self.head = conv_norm(parts[-1].cout, last)
        self.classifier = nn.Linear(last, num_classes)
        self.apply(init_weights)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        x = self.features(x)  # (B, C, H/32, W/32)
        x = self.head(x)
        x = x.mean((2, 3))  # (B, C)
        return self.classifier(x)


class Part(NamedTuple):
    """A block of a network with its channels; `row` is the stage's."""

    stage: int
    row: Row
    cin: int
    cout: int
    stride: int


def layout(table: Table, width: float, divisor: int) -> list[Part]:
    """The blocks between stem and head, in order; the stem's channels are the first one's `cin`."""
    channels = round_channels(32 * width, divisor)
    parts = []
    for stage, row in enumerate(table.stages, start=1):
        for repeat in range(row.repeats):
            cin, channels = channels, round_channels(row.channels * width, divisor)
            parts.append(Part(stage, row, cin, channels, row.stride if repeat == 0 else 1))
    return parts


def head_channels(table: Table, width: float, divisor: int) -> int:
    """Channels of the last convolution: they grow with a width above 1 and never shrink."""
    return round_channels(table.head * max(1.0, width), divisor)


def make_block(part: Part, block: Block) -> nn.Module:
    """One block of a stage; a harmonious one contracts min(k, cap) times."""
    row = part.row
    if row.block == "conv":
        return conv_norm(part.cin, part.cout, act=False)
    if row.block == "ir":
        return InvertedResidual(part.cin, part.cout, part.stride, row.expand)
    depth = min(block.k, row.cap)
    return HarmoniousBottleneck(
        part.cin, part.cout, part.stride, row.expand, replace(block, k=depth), name=f"stage {part.stage}"
    )


def round_channels(channels: float, divisor: int) -> int:
    """The nearest multiple of the divisor, halves up; at least the divisor; never down by more than 10 %."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def init_weights(module: nn.Module) -> None:
    """The release's: convolutions by their fan-out, the linear layer N(0, 0.01); batch norm starts at 1 and 0 by itself."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)


def published_divisor(net: str, width: float) -> int:
    """The divisor of the published model of that width (PAPER: 8, but for some widths of table 2)."""
    return TABLES[net].divisors.get(width, 8)


def table_of(net: str, first_stage: FirstStage = "release") -> Table:
    table = TABLES[net]
    if first_stage == "paper":
        if net != "hbonet":
            raise UserError(f"first_stage=paper: only hbonet's first stage is printed otherwise than released, not {net}'s")
        table = _exchange(table, "hb", lambda row: row.expand == 1 and row.block == "ir")
    return table


def check(net: str, block: Block, width: float | None, divisor: int | None, first_stage: FirstStage = "release") -> None:
    """Refuse what no network can obey, before anything is built.

    Raises:
        UserError: an unknown net; a switch that this net would ignore; a k above every stage's cap; a width of 0.
    """
    zoo, _, name = net.partition(":")
    if net not in TABLES and (zoo not in ZOOS or not name):
        near = difflib.get_close_matches(net, TABLES, n=1)
        raise UserError(
            f"net={net!r}: choose from {', '.join(TABLES)}, or torchvision:NAME, timm:NAME, pytorchcv:NAME"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    if first_stage not in get_args(FirstStage):
        raise UserError(f"first_stage={first_stage!r}: choose from {', '.join(get_args(FirstStage))}")
    rows = () if net not in TABLES else table_of(net, first_stage).stages
    caps = [row.cap for row in rows if row.block == "hb"]
    idle = [f"{f}={getattr(block, f)}" for f in Block.__dataclass_fields__ if getattr(block, f) != getattr(Block(), f)]
    if not caps and idle:
        raise UserError(f"{', '.join(idle)}: {net} has no harmonious bottleneck, so this would change nothing; leave it out")
    if caps and block.k > max(caps):
        raise UserError(
            f"k={block.k}: no stage of {net} can contract more than {max(caps)} times; it would be k={max(caps)} under another name"
        )
    if width is not None and not 0 < width < math.inf:
        raise UserError(f"width={width}: must be positive")
    if divisor is not None and divisor < 1:
        raise UserError(f"divisor={divisor}: must be at least 1")


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
        net: a name of `TABLES`, or `torchvision:NAME`, `timm:NAME`, `pytorchcv:NAME` (the last two in the extra `zoo`).
        block: the switches of the harmonious bottleneck.
        width: multiplier of every stage's channels; a rival of a zoo has its own, and takes none.
        divisor: channels are rounded to its multiples; None is the published one for this net and width.
        num_classes: outputs of the classifier.
        first_stage: hbonet's first stage as released (inverted residual) or as printed in table 1 (harmonious bottleneck).

    Raises:
        UserError: see `check`.
    """
    check(net, block, width, divisor, first_stage)
    if net not in TABLES:
        if width not in (None, 0.25):
            raise UserError(f"width={width}: {net} comes in one width; leave it out")
        from hbo.zoo import Rival

        return Rival(net, num_classes)
    width = 1.0 if width is None else width
    divisor = divisor or published_divisor(net, width)
    if net == "mobilenetv2":
        return mobilenetv2(width, divisor, num_classes)
    return Net(table_of(net, first_stage), block, width, divisor, num_classes)


def mobilenetv2(width: float, divisor: int, num_classes: int) -> Pyramid:
    """torchvision's, its dropout off as the paper's training has none; the same names in the checkpoint."""
    from torchvision.models import MobileNetV2

    class MobileNetV2Pyramid(MobileNetV2, Pyramid):
        pass

    return MobileNetV2Pyramid(
        num_classes=num_classes, width_mult=width, round_nearest=divisor, dropout=0.0, norm_layer=BatchNorm
    )
