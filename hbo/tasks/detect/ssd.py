"""SSD on the feature maps of any network (section 4.2, table 8), from torchvision's detection parts.

Six maps, 20 x 20 to 1 x 1 at 320 x 320: the network's pyramid at strides 16 and 32, then four extra layers. Extra layers,
heads and anchors are the same for every network; the channels that they take are learnt from a dummy forward.
"""

import copy
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import box_iou

from hbo.block import conv_norm
from hbo.errors import UserError, first_line
from hbo.kernels.norm import BatchNorm
from hbo.nets import Pyramid
from hbo.nets.counting import stages
from hbo.nets.network import init_weights

EXTRA = (512, 256, 256, 128)  # channels of the extra layers, not scaled by the width
RATIOS = [[2, 3]] * 6  # of the anchors' sides, beside 1 : 1 in two sizes: six anchors a place
LARGEST = 0.95  # side of the largest anchors over the image's
Target = dict[str, Tensor]


class Features(nn.Module):
    """The network's maps at strides 16 and 32, then the extra layers', each half the size of the one before."""

    def __init__(self, net: Pyramid) -> None:
        super().__init__()
        without_classifier(net)
        self.net = net
        with torch.no_grad():
            channels = _on_meta(net).pyramid(torch.empty(1, 3, 224, 224, device="meta"))[32].shape[1]
        extra = []
        for cout in EXTRA:  # as in SSDLite: a bottleneck of half the channels around a depthwise step down
            half = cout // 2
            layers = conv_norm(channels, half), conv_norm(half, half, 3, stride=2, groups=half), conv_norm(half, cout)
            extra.append(nn.Sequential(*layers))
            channels = cout
        self.extra = nn.ModuleList(extra)
        self.extra.apply(init_weights)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        pyramid = self.net.pyramid(x)
        maps = [pyramid[16], pyramid[32]]  # (B, C, H/16, W/16), (B, C, H/32, W/32)
        for layer in self.extra:
            maps.append(layer(maps[-1]))  # (B, 512, H/64, W/64) and so on
        return maps


class Detector(SSD):
    """torchvision's SSD, its losses and its way from predictions to detections, over our maps.

    It takes images of one size, normalised by the task, where torchvision's would resize and normalise them itself.

    Args:
        net: any network with a pyramid; its classifier is taken off.
        num_classes: without the background.
        head: "separable" as in SSDLite, or "full" 3x3 convolutions.
        resolution: side of the square input, R.
        min_scale: side of the smallest anchors over R.
    """

    anchors: Tensor  # (A, 4), in pixels

    def __init__(
        self,
        net: Pyramid,
        num_classes: int,
        head: Literal["separable", "full"] = "separable",
        resolution: int = 320,
        min_scale: float = 0.2,
    ) -> None:
        if not 0 < min_scale < LARGEST:
            raise UserError(f"min_scale={min_scale}: must lie in (0, {LARGEST}), of the image's side")
        features, size = Features(net), (resolution, resolution)
        try:
            with torch.no_grad():
                maps = _on_meta(features)(torch.empty(1, 3, *size, device="meta"))
        except UserError:
            raise
        except Exception as error:  # a rival's own words for a size that it cannot take
            raise UserError(f"resolution={resolution}: {type(net).__name__} cannot take it ({first_line(error)})") from None
        channels = [m.shape[1] for m in maps]
        generator = DefaultBoxGenerator(RATIOS, min_scale, LARGEST)
        anchors = generator.num_anchors_per_location()
        if head == "separable":
            heads = SSDLiteHead(channels, anchors, num_classes + 1, BatchNorm)
        else:
            heads = SSDHead(channels, anchors, num_classes + 1)
        super().__init__(features, generator, size, num_classes + 1, head=heads)
        on_cpu = [torch.empty(m.shape) for m in maps]
        boxes = generator(ImageList(torch.empty(1, 3, *size), [size]), on_cpu)[0]
        self.register_buffer("anchors", boxes, persistent=False)
        self.size = size

    @property
    def net(self) -> Any:
        """The backbone, without its classifier."""
        return self.backbone.net

    @property
    def built(self) -> list[Any]:
        """What the backbone's blocks really got."""
        return getattr(self.net, "built", [])

    def stages(self) -> dict[str, str]:
        """Module name -> its part, as costs are told."""
        names = {f"backbone.net.{module}": stage for module, stage in stages(self.net).items() if stage != "classifier"}
        names |= {f"backbone.extra.{i}": f"extra {i + 1}" for i in range(len(EXTRA))}
        return names | {"head.classification_head": "class head", "head.regression_head": "box head"}

    def forward(self, x: Float[Tensor, "b 3 r r"]) -> tuple[Float[Tensor, "b a classes"], Float[Tensor, "b a 4"]]:  # pyright: ignore
        """Logits, the background's first, and the boxes' offsets from the anchors."""
        out = self.head(self.backbone(x))
        return out["cls_logits"].float(), out["bbox_regression"].float()

    def loss(self, logits: Tensor, offsets: Tensor, targets: list[Target]) -> tuple[Tensor, int]:
        """Smooth L1 of the boxes and cross-entropy of the classes, three negatives a positive, the hardest ones.

        Returns:
            The mean over anchors that match an object by an overlap of 0.5, or best of all; and how many match.
        """
        matched = []
        for target in targets:
            if len(target["boxes"]):
                matched.append(self.proposal_matcher(box_iou(target["boxes"], self.anchors)))
            else:
                matched.append(torch.full((len(self.anchors),), -1, device=self.anchors.device))
        shifted: list[Any] = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        outputs = {"cls_logits": logits, "bbox_regression": offsets}
        losses = self.compute_loss(shifted, outputs, [self.anchors] * len(targets), matched)
        return losses["classification"] + losses["bbox_regression"], int(sum((m >= 0).sum() for m in matched))

    def detections(self, logits: Tensor, offsets: Tensor) -> list[dict[str, Tensor]]:
        """Boxes in pixels, scores and labels of each image, likeliest first: above 0.01, after NMS at 0.45, 200 at most."""
        outputs, n = {"cls_logits": logits, "bbox_regression": offsets}, len(logits)
        found = self.postprocess_detections(outputs, [self.anchors] * n, [self.size] * n)
        return [image | {"labels": image["labels"] - 1} for image in found]


def _on_meta(module: nn.Module) -> Any:
    """A copy that computes shapes alone."""
    return copy.deepcopy(module).to("meta").eval()


def without_classifier(net: Pyramid) -> None:
    """Take off what a network runs after its last map of stride 32: those modules' weights would have no gradient.

    Raises:
        UserError: the network has no pyramid.
    """
    meta, calls, image = _on_meta(net), list[str](), torch.empty(1, 3, 224, 224, device="meta")
    with torch.no_grad():
        meta.pyramid(image)  # the first call finds the strides, in passes of its own
        for name, module in meta.named_modules():
            module.register_forward_hook(lambda _m, _i, _o, name=name: calls.append(name))
        maps = meta.pyramid(image)
    if not {16, 32} <= maps.keys():
        raise UserError(f"{type(net).__name__} has no feature maps of stride 16 and 32 at 224 x 224, so no detector on it")
    net.__dict__["_strides"] = meta.__dict__["_strides"]
    last = len(calls) - 1 - calls[::-1].index(meta.__dict__["_strides"][32])
    before = set(calls[: last + 1])
    for name in dict.fromkeys(calls[last + 1 :]):
        leaf = name and name not in before and not list(net.get_submodule(name).children())
        if leaf and list(net.get_submodule(name).parameters()):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, nn.Identity())
