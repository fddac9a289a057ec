"""Networks as tables of stages: HBONet (table 1), variants with other blocks,
MobileNetV2; and channels for a width.

Nothing here needs torch.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from hbo.errors import UserError


class Row(NamedTuple):
    """A stage: `repeats` blocks, the first with `stride`; `cap` is the largest number of contraction units at
    its resolution.
    """

    block: Literal["ir", "hb", "conv"]  # inverted residual, harmonious bottleneck, 1x1 convolution
    expand: int
    channels: int
    repeats: int
    stride: int
    cap: int


class StageTable(NamedTuple):
    stages: tuple[Row, ...]
    head: int  # channels of the last 1x1 convolution at width 1 and below
    divisors: dict[float, int]  # width -> divisor of the published models, if it is not 8


# fmt: off
HBONET = StageTable((  # table 1 as released
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

MOBILENETV2 = StageTable((  # table 2 of MobileNetV2; the caps are those of HBONet at the same resolution
    Row("ir",   1,  16, 1, 1, 3),  # 112
    Row("ir",   6,  24, 2, 2, 3),  # 56
    Row("ir",   6,  32, 3, 2, 2),  # 28
    Row("ir",   6,  64, 4, 2, 1),  # 14
    Row("ir",   6,  96, 3, 1, 1),  # 14
    Row("ir",   6, 160, 3, 2, 0),  # 7: too small to contract
    Row("ir",   6, 320, 1, 1, 0),  # 7
), head=1280, divisors={0.1: 4})
# fmt: on


def _exchange(table: StageTable, block: Literal["ir", "hb"], where: Callable[[Row], bool]) -> StageTable:
    return table._replace(stages=tuple(r._replace(block=block) if where(r) else r for r in table.stages))


TABLES = {
    "hbonet": HBONET,
    "hbonet_ir": _exchange(HBONET, "ir", lambda row: row.block == "hb"),
    "mobilenetv2": MOBILENETV2,
    "mobilenetv2_hbo": _exchange(MOBILENETV2, "hb", lambda row: row.repeats > 1),  # its residual stages
}
FirstStage = Literal["release", "paper"]


class PlacedBlock(NamedTuple):
    """A block of a network with its channels; `row` is its stage."""

    stage: int
    row: Row
    cin: int
    cout: int
    stride: int


def layout(table: StageTable, width: float, divisor: int) -> list[PlacedBlock]:
    """The blocks between stem and head, in order; the stem's channels are the first one's `cin`."""
    channels = round_channels(32 * width, divisor)
    parts = []
    for stage, row in enumerate(table.stages, start=1):
        for repeat in range(row.repeats):
            cin, channels = channels, round_channels(row.channels * width, divisor)
            parts.append(PlacedBlock(stage, row, cin, channels, row.stride if repeat == 0 else 1))
    return parts


def head_channels(table: StageTable, width: float, divisor: int) -> int:
    """Channels of the last convolution: scaled by a width above 1, never below."""
    return round_channels(table.head * max(1.0, width), divisor)


def round_channels(channels: float, divisor: int) -> int:
    """Round to a multiple of the divisor, halves up; at least the divisor, and at least 90 % of the value."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def published_divisor(net: str, width: float) -> int:
    """The divisor of the published model of that width (PAPER: 8, but for some widths of table 2)."""
    return TABLES[net].divisors.get(width, 8)


def table_of(net: str, first_stage: FirstStage = "release") -> StageTable:
    table = TABLES[net]
    if first_stage == "paper":
        if net != "hbonet":
            raise UserError(
                f"first_stage=paper: only hbonet's first stage differs between paper and release, not {net}'s"
            )
        table = _exchange(table, "hb", lambda row: row.expand == 1 and row.block == "ir")
    return table
