"""A network built from a stage table."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor, nn

from hbo.block import Block, HarmoniousBottleneck, InvertedResidual, conv_norm
from hbo.nets.pyramid import Pyramid
from hbo.nets.tables import PlacedBlock, StageTable, head_channels, layout


@dataclass(frozen=True)
class Built:
    """A block as built, where the input's channels or the stage's cap limit the switches."""

    stage: int  # of table 1
    block: str
    stride: int
    cin: int
    cout: int
    depth: int
    concat_channels: int
    residual_channels: int


class Net(Pyramid):
    """A network from a stage table: stem, blocks, head, global average pool, linear classifier."""

    def __init__(self, table: StageTable, block: Block, width: float, divisor: int, num_classes: int) -> None:
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


def make_block(part: PlacedBlock, block: Block) -> nn.Module:
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


def init_weights(module: nn.Module) -> None:
    """Initialise as the release: convolutions by fan-out, the linear layer N(0, 0.01); batch norm already
    starts at 1 and 0.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0, 0.01)
        nn.init.zeros_(module.bias)
