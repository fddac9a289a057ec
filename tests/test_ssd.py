"""SSD on any network: its maps, anchors and losses against torchvision's own SSDLite, its costs against
torch's counter.
"""

import dataclasses
import json
from collections import OrderedDict

import pytest
import torch
from conftest import call
from test_block import CASES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead
from torchvision.ops import nms

from hbo import cost
from hbo.block import Block
from hbo.errors import UserError
from hbo.nets import build
from hbo.tasks.detect.ssd import EXTRA, Detector

NETS = [
    "hbonet",
    "hbonet_ir",
    "mobilenetv2",
    "mobilenetv2_hbo",
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x0_5",
]
SIZES = [20, 10, 5, 3, 2, 1]


def detector(
    net: str = "hbonet", classes: int = 3, block: Block | None = None, width: float = 0.1, **kwargs
) -> Detector:
    torch.manual_seed(0)
    return Detector(build(net, block or Block(), *((width, 4) if ":" not in net else ())), classes, **kwargs)


def some_targets(images: int = 2, side: int = 320) -> list[dict[str, torch.Tensor]]:
    """Three, two, ... boxes per image, none in the last."""
    draw, targets = torch.Generator().manual_seed(1), []
    for i in range(images):
        n = 0 if i == images - 1 else 3 - i % 3
        corner = torch.rand(n, 2, generator=draw) * side * 0.6
        extent = 10 + torch.rand(n, 2, generator=draw) * side * 0.35
        labels = torch.randint(3, (n,), generator=draw)
        targets.append({"boxes": torch.cat([corner, corner + extent], 1), "labels": labels})
    return targets


# ------------------------------------------------------------ maps and heads


@pytest.mark.parametrize("net", NETS)
def test_six_maps_and_the_same_anchors_for_every_network(net):
    model = detector(net).eval()
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, 320, 320))
        logits, offsets = model(torch.zeros(2, 3, 320, 320))
    assert [tuple(m.shape[2:]) for m in maps] == [(n, n) for n in SIZES]
    assert [m.shape[1] for m in maps[2:]] == list(EXTRA) == [512, 256, 256, 128]  # at any width
    anchors = 6 * sum(n * n for n in SIZES)
    assert logits.shape == offsets.shape == (2, anchors, 4)  # three classes and the background; four corners
    assert torch.equal(model.anchors, detector("hbonet").anchors)


@pytest.mark.parametrize("net", NETS)
def test_heads_differ_between_networks_only_in_the_first_two_maps_channels(net):
    def layers(model: Detector) -> list[str]:
        """The extra layers and heads, with the channels of the network's own two maps replaced by names."""
        with torch.no_grad():
            first, second = (m.shape[1] for m in model.eval().backbone(torch.zeros(1, 3, 64, 64))[:2])
        words = {first: "first", second: "second"}
        told = []
        for part in (model.backbone.extra, model.head):
            for name, m in part.named_modules():
                if isinstance(m, nn.Conv2d):
                    sides = [words.get(c, c) for c in (m.in_channels, m.out_channels)]
                    grouped = "depthwise" if m.groups == m.in_channels else m.groups
                    told.append(f"{name} {sides} {m.kernel_size} {m.stride} {grouped}")
        return told

    for head in ("separable", "full"):
        assert layers(detector(net, head=head)) == layers(detector("hbonet", head=head))


def test_the_first_map_feeds_the_layer_to_stride_32():
    """MobileNetV2 at width 1: the expansion to 96 * 6 channels before the depthwise step to 10 x 10; 1280
    channels at the end.
    """
    model = Detector(build("mobilenetv2", width=1.0), 20).eval()
    reads = {}
    for module in model.net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, out: reads.update({m: (args[0], out)}))
    with torch.no_grad():
        maps = model.backbone(torch.rand(1, 3, 320, 320))
    assert [m.shape[1] for m in maps[:2]] == [576, 1280]
    read = next(x for x, out in reads.values() if out.shape[-1] == 10)
    assert torch.equal(read, maps[0])
    last = list(reads.values())[-1][1]
    assert last.shape == maps[1].shape  # no layer of the network runs after the second map


def test_every_parameter_is_used_and_the_classifier_removed():
    for net in NETS:
        model = detector(net, resolution=96).train()
        logits, offsets = model(torch.rand(2, 3, 96, 96))
        (logits.square().sum() + offsets.square().sum()).backward()
        idle = [name for name, p in model.named_parameters() if p.grad is None]
        assert not idle, net


@pytest.mark.parametrize("resolution", [160, 300])
def test_other_sizes_have_the_anchors_of_their_maps(resolution):
    model = detector(resolution=resolution).eval()
    with torch.no_grad():
        sizes = [m.shape[-1] for m in model.backbone(torch.zeros(1, 3, resolution, resolution))]
        logits, _ = model(torch.zeros(1, 3, resolution, resolution))
    assert sizes[:2] == [-(-resolution // 16), -(-resolution // 32)]
    assert logits.shape[1] == len(model.anchors) == 6 * sum(n * n for n in sizes)


@pytest.mark.parametrize(("name", "value"), CASES)
def test_every_value_of_every_switch_gives_a_detector(name, value):
    block = dataclasses.replace(Block(k=2), **{name: value})
    model = detector(block=block, resolution=160).eval()
    with torch.no_grad():
        logits, _ = model(torch.zeros(1, 3, 160, 160))
    assert logits.shape[1] == len(model.anchors)
    assert {b.block for b in model.built} == {"ir", "hb"}


def test_a_network_without_the_two_maps_is_an_error():
    with pytest.raises(UserError, match="stride"):
        Detector(build("torchvision:squeezenet1_1"), 3)


# ------------------------------------------------------------ against torchvision's SSDLite


@pytest.fixture(scope="module")
def reference():
    """The SSDLite320 of torchvision on MobileNetV3, with three classes and the background; it has the same
    six maps.
    """
    torch.manual_seed(0)
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()


def test_anchors_are_torchvisions_ssdlites(reference):
    seen = {}
    hook = reference.anchor_generator.register_forward_hook(lambda _m, _i, out: seen.update(anchors=out[0]))
    with torch.no_grad():
        reference([torch.rand(3, 320, 320)])
    hook.remove()
    assert torch.equal(detector().anchors, seen["anchors"])


def test_the_head_is_torchvisions_ssdlite_head(reference):
    ours = detector().head.classification_head
    theirs = reference.head.classification_head
    assert isinstance(ours, SSDLiteClassificationHead)
    # The extra maps' channels are the same.
    for mine, other in zip(ours.module_list[2:], theirs.module_list[2:], strict=True):
        assert {k: v.shape for k, v in mine.state_dict().items()} == {
            k: v.shape for k, v in other.state_dict().items()
        }


class Fixed(nn.Module):
    """Returns a backbone's maps or a head's predictions for any input."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, *_):
        return self.value


@pytest.fixture(scope="module")
def predictions():
    draw = torch.Generator().manual_seed(2)
    anchors = len(detector().anchors)
    return torch.randn(4, anchors, 4, generator=draw) * 2, torch.randn(4, anchors, 4, generator=draw) * 0.3


@pytest.fixture
def torchvisions(reference, predictions):
    """The whole SSDLite of torchvision, with its network's output replaced by the given predictions."""
    logits, offsets = predictions
    backbone, head = reference.backbone, reference.head
    reference.backbone = Fixed(OrderedDict((str(n), torch.zeros(4, 1, n, n)) for n in SIZES))
    reference.head = Fixed({"cls_logits": logits, "bbox_regression": offsets})
    settings = (
        reference.score_thresh,
        reference.nms_thresh,
        reference.detections_per_img,
        reference.topk_candidates,
    )
    reference.score_thresh, reference.nms_thresh, reference.detections_per_img, reference.topk_candidates = (
        0.01,
        0.45,
        200,
        400,
    )
    yield reference
    reference.score_thresh, reference.nms_thresh, reference.detections_per_img, reference.topk_candidates = (
        settings
    )
    reference.backbone, reference.head = backbone, head
    reference.eval()


def test_the_loss_is_torchvisions_on_the_same_predictions(torchvisions, predictions):
    targets = some_targets(4)
    images = [torch.rand(3, 320, 320) for _ in range(4)]
    shifted = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
    theirs = sum(torchvisions.train()(images, shifted).values())
    ours, matched = detector().loss(*predictions, targets)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert matched >= sum(len(t["boxes"]) for t in targets)


def test_detections_are_torchvisions_on_the_same_predictions(torchvisions, predictions):
    with torch.no_grad():
        theirs = torchvisions.eval()([torch.rand(3, 320, 320) for _ in range(4)])
        ours = detector().detections(*predictions)
    for mine, other in zip(ours, theirs, strict=True):
        assert 0 < len(mine["scores"]) <= 200
        torch.testing.assert_close(mine["boxes"], other["boxes"])
        assert torch.equal(mine["scores"], other["scores"])
        assert torch.equal(mine["labels"] + 1, other["labels"])
        for label in range(3):
            one = mine["labels"] == label
            assert len(nms(mine["boxes"][one], mine["scores"][one], 0.45)) == one.sum()


# ------------------------------------------------------------ laws


def test_predicting_the_encoded_boxes_detects_them():
    """Encoding and decoding are inverse: with the true offsets and a certain class, the detections are the
    truth.
    """
    model = detector()
    boxes = torch.tensor([[20.0, 30.0, 90.0, 120.0], [150.0, 40.0, 310.0, 300.0], [200.0, 5.0, 230.0, 60.0]])
    labels = torch.tensor([2, 0, 1])
    offsets = torch.zeros(1, len(model.anchors), 4)
    logits = torch.zeros(1, len(model.anchors), 4)
    logits[..., 0] = 20
    best = torch.stack([(model.anchors - box).abs().sum(1).argmin() for box in boxes])
    offsets[0, best] = model.box_coder.encode_single(boxes, model.anchors[best])
    logits[0, best, labels + 1] = 40
    (found,) = model.detections(logits, offsets)
    order = found["labels"].argsort()
    torch.testing.assert_close(found["boxes"][order], boxes[labels.argsort()], rtol=0, atol=1e-3)
    assert found["labels"][order].tolist() == [0, 1, 2]
    assert (found["scores"] > 0.999).all()


def test_three_hardest_negatives_per_positive():
    model = detector()
    target = [{"boxes": torch.tensor([[100.0, 100.0, 180.0, 180.0]]), "labels": torch.tensor([1])}]
    logits = torch.zeros(1, len(model.anchors), 4)
    logits[..., 0] = 10  # every anchor is background for sure
    _, matched = model.loss(logits, torch.zeros_like(logits), target)
    far = (model.anchors[:, 0] > 250).nonzero()[:, 0]

    def with_wrong(n: int) -> float:
        wrong = logits.clone()
        wrong[0, far[:n], 2] = 30  # n anchors far from any object predict one: a loss of 20 each
        return float(model.loss(wrong, torch.zeros_like(logits), target)[0])

    base = with_wrong(0)
    assert with_wrong(1) - base == pytest.approx(20 / matched, rel=1e-2)
    assert with_wrong(3 * matched) - base == pytest.approx(60, rel=1e-2)
    # Any more do not count.
    assert with_wrong(3 * matched + 50) == pytest.approx(with_wrong(3 * matched), rel=1e-6)


def test_no_object_is_no_loss():
    model = detector()
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}]
    logits = torch.randn(1, len(model.anchors), 4, requires_grad=True)
    loss, matched = model.loss(logits, torch.zeros(1, len(model.anchors), 4), empty)
    assert (float(loss.detach()), matched) == (0, 0)
    loss.backward()  # a batch of such images can still be trained on


# ------------------------------------------------------------ costs


@pytest.mark.parametrize("head", ["separable", "full"])
@pytest.mark.parametrize("net", ["hbonet", "mobilenetv2"])
def test_cost_counts_the_whole_detector(net, head):
    model = detector(net, 20, head=head, width=0.25).eval()
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(torch.zeros(1, 3, 320, 320))
    costs = cost.count(model, 320)
    total = costs.pop("total")
    assert total.macs == flops.get_total_flops() / 2 == sum(c.macs for c in costs.values())
    assert total.params == sum(p.numel() for p in model.parameters()) == sum(c.params for c in costs.values())
    assert "classifier" not in costs
    assert list(costs)[-6:] == ["extra 1", "extra 2", "extra 3", "extra 4", "class head", "box head"]
    assert min(c.macs for c in costs.values()) > 0


@pytest.mark.slow
def test_cost_from_the_command_line():
    def ask(*more) -> dict:
        return json.loads(call("hbo.cost", "--task", "detect", "--width", 0.25, "--json", *more)[0])

    for head in ("separable", "full"):
        out = ask("--head", head)
        model = Detector(build("hbonet", Block(), 0.25, 2), 20, head=head, anchors="ssdlite").eval()
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            model(torch.zeros(1, 3, 320, 320))
        assert (out["resolution"], out["num_classes"], out["macs"]) == (320, 20, flops.get_total_flops() / 2)


def test_heads_fit_maps_of_networks_that_round_down():
    """DenseNet's pooling floors: at 300 px its map of stride 16 is 18 x 18, where others have 19 x 19."""
    detector = Detector(build("torchvision:densenet121", width=None), 3, "separable", 300).eval()
    with torch.no_grad():
        maps = detector.backbone(torch.randn(1, 3, 300, 300))
        logits, offsets = detector(torch.randn(1, 3, 300, 300))
    assert [tuple(m.shape[2:]) for m in maps[:2]] == [(18, 18), (9, 9)]
    assert logits.shape[:2] == offsets.shape[:2] == (1, 6 * sum(m.shape[2] * m.shape[3] for m in maps))
