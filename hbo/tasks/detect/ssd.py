"""SSD on the feature maps of any network (section 4.2, table 8), from torchvision's detection parts.

Six maps, 20 x 20 to 1 x 1 at 320 x 320: the network's pyramid at strides 16 and 32, then four extra layers;
finer strides come before them. Extra layers, heads and anchors are the same for every network; their input
channels are found with a dummy forward.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import box_iou

from hbo.block import conv_norm
from hbo.errors import UserError, first_line
from hbo.kernels.norm import BatchNorm
from hbo.nets import Pyramid
from hbo.nets.counting import stages
from hbo.nets.network import init_weights
from hbo.nets.shapes import dry_run
from hbo.tasks.detect.anchors import LARGEST, Anchors, Kind, bipartite

EXTRA = (512, 256, 256, 128)  # channels of the extra layers, not scaled by the width
Target = dict[str, Tensor]


class Features(nn.Module):
    """The network's maps at the given strides, then the extra layers, each half the size of the one before.

    Args:
        net: any network with a pyramid; its classifier is removed.
        strides: increasing, the last two 16 and 32.

    Raises:
        UserError: the network has no map of such a stride.
    """

    def __init__(self, net: Pyramid, strides: Sequence[int] = (16, 32)) -> None:
        super().__init__()
        without_classifier(net)
        if missing := sorted(set(strides) - net.__dict__["_strides"].keys()):
            there = ", ".join(map(str, sorted(net.__dict__["_strides"])))
            raise UserError(
                f"strides={','.join(map(str, strides))}: {type(net).__name__} has no map of stride"
                f" {missing[0]}; it has {there}"
            )
        self.net, self.strides = net, tuple(strides)
        channels = dry_run(net, (224, 224), call=net.pyramid)[32].shape[1]
        extra = []
        for (
            cout
        ) in EXTRA:  # as in SSDLite: a bottleneck with half the channels and a strided depthwise convolution
            half = cout // 2
            layers = (
                conv_norm(channels, half),
                conv_norm(half, half, 3, stride=2, groups=half),
                conv_norm(half, cout),
            )
            extra.append(nn.Sequential(*layers))
            channels = cout
        self.extra = nn.ModuleList(extra)
        self.extra.apply(init_weights)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        pyramid = self.net.pyramid(x)
        maps = [pyramid[stride] for stride in self.strides]  # (B, C, H/16, W/16), (B, C, H/32, W/32)
        for layer in self.extra:
            maps.append(layer(maps[-1]))  # (B, 512, H/64, W/64) and so on
        return maps


class Detector(SSD):
    """torchvision's SSD, with its losses and postprocessing, on our maps.

    Its input is images of one size, normalised by the task; torchvision's would
    resize and normalise them itself.

    Args:
        net: any network with a pyramid; its classifier is removed.
        num_classes: without the background.
        head: "separable" as in SSDLite, or "full" 3x3 convolutions.
        resolution: side of the square input, R.
        min_scale: side of the first map's anchors relative to R.
        anchors: see `Anchors`.
        strides: of the network's maps, separated by commas.
        matching: see `loss`.
    """

    anchors: Tensor  # (A, 4), in pixels

    def __init__(
        self,
        net: Pyramid,
        num_classes: int,
        head: Literal["separable", "full"] = "separable",
        resolution: int = 320,
        min_scale: float = 0.2,
        anchors: Kind = "torchvision",
        strides: str = "16,32",
        matching: Literal["argmax", "bipartite"] = "argmax",
    ) -> None:
        if not 0 < min_scale < LARGEST:
            raise UserError(f"min_scale={min_scale}: must be in (0, {LARGEST}), relative to the image's side")
        features, size = (
            Features(net, [int(stride) for stride in strides.split(",")]),
            (resolution, resolution),
        )
        try:
            maps = dry_run(features, size)
        except UserError:
            raise
        except Exception as error:  # another author's network that does not support this size
            raise UserError(
                f"resolution={resolution}: not supported by {type(net).__name__} ({first_line(error)})"
            ) from None
        channels = [m.shape[1] for m in maps]
        generator = Anchors(anchors, min_scale, len(maps))
        number = generator.num_anchors_per_location()
        if head == "separable":
            heads = SSDLiteHead(channels, number, num_classes + 1, BatchNorm)
        else:
            heads = SSDHead(channels, number, num_classes + 1)
        super().__init__(features, generator, size, num_classes + 1, head=heads)
        self.sizes = [(m.shape[2], m.shape[3]) for m in maps]
        self.register_buffer("anchors", generator.boxes(self.sizes, resolution), persistent=False)
        self.size, self.matching = size, matching

    @property
    def net(self) -> Any:
        """The backbone, without its classifier."""
        return self.backbone.net

    @property
    def built(self) -> list[Any]:
        """Depths and ratios of the backbone's blocks, as built."""
        return getattr(self.net, "built", [])

    def stages(self) -> dict[str, str]:
        """Module name -> its part, in the table of costs."""
        names = {
            f"backbone.net.{module}": stage
            for module, stage in stages(self.net).items()
            if stage != "classifier"
        }
        names |= {f"backbone.extra.{i}": f"extra {i + 1}" for i in range(len(EXTRA))}
        return names | {"head.classification_head": "class head", "head.regression_head": "box head"}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "b 3 r r"]
    ) -> tuple[Float[Tensor, "b a classes"], Float[Tensor, "b a 4"]]:
        """Logits, the background first, and the boxes' offsets from the anchors."""
        out = self.head(self.backbone(x))
        return out["cls_logits"].float(), out["bbox_regression"].float()

    def loss(self, logits: Tensor, offsets: Tensor, targets: list[Target]) -> tuple[Tensor, int]:
        """Smooth L1 of the boxes and cross-entropy of the classes, with the three
        hardest negatives per positive.

        An anchor matches the object with the largest overlap, if that is 0.5 or more. In addition each
        object gets its best anchor, whatever the overlap: if two objects have the same best anchor,
        "argmax" gives it to the later one, and the other may have none; "bipartite" gives each its own.

        Returns:
            The mean over matched anchors, and their number.
        """
        matched = [self._matches(target["boxes"]) for target in targets]
        shifted: list[Any] = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        outputs = {"cls_logits": logits, "bbox_regression": offsets}
        losses = self.compute_loss(shifted, outputs, [self.anchors] * len(targets), matched)
        return losses["classification"] + losses["bbox_regression"], int(sum((m >= 0).sum() for m in matched))

    def _matches(self, boxes: Float[Tensor, "g 4"]) -> Int[Tensor, " a"]:
        """The object of each anchor, -1 for none."""
        if not len(boxes):
            return torch.full((len(self.anchors),), -1, device=self.anchors.device)
        overlaps = box_iou(boxes, self.anchors)
        matches = self.proposal_matcher(overlaps)
        if self.matching == "bipartite":
            matches[bipartite(overlaps)] = torch.arange(len(boxes), device=matches.device)
        return matches

    def detections(self, logits: Tensor, offsets: Tensor) -> list[dict[str, Tensor]]:
        """Boxes in pixels, scores and labels of each image, highest score first: above 0.01, after NMS at
        0.45, at most 200.
        """
        outputs, n = {"cls_logits": logits, "bbox_regression": offsets}, len(logits)
        found = self.postprocess_detections(outputs, [self.anchors] * n, [self.size] * n)
        return [image | {"labels": image["labels"] - 1} for image in found]


def without_classifier(net: Pyramid) -> None:
    """Remove the modules that run after the last map of stride 32: their weights would have no gradient.

    Raises:
        UserError: the network has no pyramid.
    """
    calls: list[str] = []
    dry_run(net, (224, 224), call=net.pyramid)  # the first call finds the strides, in separate passes
    maps = dry_run(net, (224, 224), lambda name, _m, _out: calls.append(name), net.pyramid)
    if not {16, 32} <= maps.keys():
        raise UserError(
            f"{type(net).__name__} has no feature maps of stride 16 and 32 at 224 x 224, which a detector"
            " needs"
        )
    last = len(calls) - 1 - calls[::-1].index(net.__dict__["_strides"][32])
    before = set(calls[: last + 1])
    for name in dict.fromkeys(calls[last + 1 :]):
        leaf = name and name not in before and not list(net.get_submodule(name).children())
        if leaf and list(net.get_submodule(name).parameters()):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, nn.Identity())
