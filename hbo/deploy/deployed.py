"""deploy(model): the same function with less work per image, for export.

Batch norm is folded into convolutions, pooling becomes a convolution, which runtimes compute faster, and maps
are laid out for vector registers (`hbo.deploy.lanes`). A harmonious bottleneck becomes convolutions,
upsampling and one addition (`hbo.deploy.bottleneck`).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import MobileNetV2

from hbo.block import HarmoniousBottleneck, InvertedResidual
from hbo.deploy.bottleneck import Bottleneck, Piece, input_channels, roles
from hbo.deploy.checks import check_hooks, check_modules, check_switches
from hbo.deploy.enlarging import for_xnnpack
from hbo.deploy.lanes import Convolution, Layout, depthwise, fill, folded, places, refuse
from hbo.errors import UserError
from hbo.nets import Net
from hbo.words import did_you_mean

TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch")
XNNPACK = ("executorch", "litert")  # which runs these, and knows no nearest or bicubic resize


def deploy(model: nn.Module, target: str = "onnx") -> nn.Module:
    """A network that gives the model's logits, without batch norm, slices and concatenations; the model is
    not changed.

    Args:
        model: a network of `hbo.nets.build`; in one from a zoo, only batch norm is folded.
        target: the runtime that it is made for.

    Raises:
        UserError: a module or a switch, by name, that deploy does not know; a hook or a parametrization; a
            network of a zoo whose code cannot be traced; an unknown target.
    """
    if target not in TARGETS:
        raise UserError(
            f"target={target}: choose from {', '.join(TARGETS)}{did_you_mean(target, list(TARGETS))}"
        )
    check_hooks(model)
    model = copy.deepcopy(model).cpu().eval()
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    with torch.no_grad():
        deployed = _deploy(model.double())
        if target in XNNPACK:
            resize_for_xnnpack(deployed, target)
    return deployed.eval().requires_grad_(False).to(dtype)


def resize_for_xnnpack(deployed: nn.Module, target: str) -> None:
    """Replace upsamplings by operators that XNNPACK supports."""
    for module in deployed.modules():
        if isinstance(module, Piece) and module.project is not None:
            module.enlarge = for_xnnpack(module.enlarge, len(module.target), target)


def _deploy(model: nn.Module) -> nn.Module:
    if isinstance(model, (Net, MobileNetV2)):
        check_modules(model)
    if isinstance(model, Net):
        check_switches(model.block)  # after the modules, whose errors name what is unknown
        return Deployed([*model.features, model.head], model.classifier)
    if isinstance(model, MobileNetV2):
        blocks = [_ours(block) for block in model.features]
        classifier: Any
        *before, classifier = model.classifier
        if not all(isinstance(layer, nn.Dropout) for layer in before):
            raise refuse("classifier has other layers than Dropout and Linear")
        return Deployed(blocks, classifier)
    from torch.fx.experimental.optimization import fuse

    try:
        return fuse(model)
    except Exception as error:  # whatever the tracer says of code that it cannot follow
        raise refuse(f"{type(model).__name__} cannot be traced ({str(error).splitlines()[0]})") from None


def _ours(block: nn.Module) -> nn.Module:
    """Torchvision's inverted residual as ours; any other module unchanged."""
    inner = getattr(block, "conv", None)
    if inner is None:
        return block
    *first, project, norm = inner
    if len(first) not in (1, 2):
        raise refuse(f"{len(inner)} layers in an inverted residual where deploy knows 3 or 4")
    expand = first[0] if len(first) == 2 else nn.Identity()
    own: Any = InvertedResidual(1, 1, 1, 1)
    own.expand, own.depthwise, own.project = expand, first[-1], nn.Sequential(project, norm)
    own.residual_channels = project.out_channels if block.use_res_connect else 0
    return own


class Deployed(nn.Module):
    """Stem, blocks and head, each from parts to parts; global average pool; linear classifier."""

    def __init__(self, blocks: Sequence[nn.Module], classifier: nn.Linear) -> None:
        super().__init__()
        if not isinstance(classifier, nn.Linear):
            raise refuse(f"classifier is a {type(classifier).__name__}, which deploy does not know")
        layout: Layout = [(0, 1, 2)]
        built: list[nn.Module] = []
        for i, block in enumerate(blocks):
            new = _build(block, layout, _wish(blocks[i + 1 :]))
            layout = new.target
            built.append(new)
        self.blocks = nn.ModuleList(built)
        (lanes,) = layout
        self.classifier = nn.Linear(len(lanes), classifier.out_features, dtype=torch.float64)
        self.classifier.weight.data.zero_()
        for channel, (_, lane) in places(layout).items():
            self.classifier.weight.data[:, lane] = classifier.weight[:, channel]
        self.classifier.bias.data.copy_(classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for block in self.blocks:
            parts = block(parts)
        return self.classifier(F.avg_pool2d(parts[0], parts[0].shape[2:]).flatten(1))


class Inverted(nn.Module):
    """`InvertedResidual`: expand, depthwise, project, each part of the input added
    to what is computed for it.
    """

    def __init__(self, block: InvertedResidual, source: Layout, wish: Layout | None) -> None:
        super().__init__()
        self.expand = None
        hidden = source
        if not isinstance(block.expand, nn.Identity):
            self.expand = Convolution(block.expand, source, None)
            hidden = self.expand.target
        conv, affine, _ = folded(block.depthwise, act=True, each=True)
        self.depthwise = nn.ModuleList(
            nn.Sequential(depthwise(affine, lanes, conv.stride[0]), nn.ReLU6()) for lanes in hidden
        )
        self.residual = bool(block.residual_channels)
        self.project = Convolution(block.project, hidden, source if self.residual else wish)
        self.target = self.project.target

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        hidden = parts if self.expand is None else self.expand(parts)
        hidden = [conv(part) for conv, part in zip(self.depthwise, hidden, strict=True)]
        main = self.project(hidden)
        return [part + m for part, m in zip(parts, main, strict=True)] if self.residual else main


def _build(block: nn.Module, source: Layout, wish: Layout | None) -> Bottleneck | Inverted | Convolution:
    if isinstance(block, HarmoniousBottleneck):
        return Bottleneck(block, source)
    if isinstance(block, InvertedResidual):
        return Inverted(block, source, wish)
    return Convolution(block, source, wish)


def _wish(after: Sequence[nn.Module]) -> Layout | None:
    """The layout that spares the next bottleneck a copy, where its input can be made in
    any; None if it does not care.
    """
    block = after[0] if after else None
    if isinstance(block, InvertedResidual) and block.residual_channels:
        return _wish(after[1:])  # its output has the layout of its input
    if not isinstance(block, HarmoniousBottleneck) or block.stride == 2 or not block.residual_channels:
        return None
    drawn, joined = roles(block)
    rest = [c for c in range(input_channels(block)) if c not in drawn and c not in joined]
    if drawn and _snug(len(drawn), len(joined)):
        return [fill(drawn), fill([*joined, *rest])]
    return [fill([*drawn, *joined, *rest])]


def _snug(*sizes: int) -> bool:
    """Whether parts of these channels have as few lanes as one part of all of them."""
    return sum(len(fill(range(size))) for size in sizes) <= len(fill(range(sum(sizes))))
