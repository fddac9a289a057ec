"""Anchors of SSD's first map, how objects are matched to them, and the cost of a finer map: published figures
and SSD's own rule.
"""

import json

import pytest
import torch
from conftest import ROOT, call, make_voc, only_row
from flagged import flags
from torchvision.ops import box_iou

from hbo import cost
from hbo.analysis import results
from hbo.config import as_saved, content, key_of, resolve
from hbo.errors import UserError
from hbo.nets import build
from hbo.runs import checkpoint, identity
from hbo.tasks.detect.anchors import Anchors, bipartite
from hbo.tasks.detect.ssd import Detector


def mobilenetv2(**kwargs) -> Detector:
    """MobileNetV2 1.0 with COCO's 80 classes at 320 px."""
    return Detector(build("mobilenetv2", width=1.0), 80, **kwargs)


# ------------------------------------------------------------ table 8's anchors


def test_published_parameters_and_multiply_adds_of_mobilenetv2s_ssdlite():
    """Sandler et al. 2018, table 6: MNet V2 + SSDLite has 4.3 M parameters and 0.8 B multiply-adds."""
    found = cost.count(mobilenetv2(anchors="ssdlite"), 320)["total"]
    assert (found.params, found.macs) == (4_337_013, 788_830_144)
    assert (f"{found.params / 1e6:.1f}", f"{found.macs / 1e9:.1f}") == ("4.3", "0.8")
    other = cost.count(mobilenetv2(anchors="torchvision"), 320)["total"]
    assert (f"{other.params / 1e6:.1f}", other.macs) == ("4.5", 847_582_144)


def tensorflows(min_scale: float, layers: int) -> list[list[tuple[float, float]]]:
    """(scale, aspect ratio) for each layer, as object_detection's `create_ssd_anchors` lists them."""
    scales = [min_scale + (0.95 - min_scale) * i / (layers - 1) for i in range(layers)] + [1.0]
    specs = []
    for i in range(layers):
        if i == 0:
            specs.append([(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)])
        else:
            between = (scales[i] * scales[i + 1]) ** 0.5
            specs.append([*((scales[i], ratio) for ratio in (1.0, 2.0, 3.0, 1 / 2, 1 / 3)), (between, 1.0)])
    return specs


def test_anchors_are_tensorflows_with_fewer_boxes_in_the_lowest_layer():
    sizes = [(n, n) for n in (20, 10, 5, 3, 2, 1)]
    ours = Anchors("ssdlite", 0.2, 6).boxes(sizes, 320)
    theirs = [
        ((x + 0.5) / n, (y + 0.5) / n, min(scale * ratio**0.5, 1), min(scale / ratio**0.5, 1))
        for (n, _), specs in zip(sizes, tensorflows(0.2, 6), strict=True)
        for y in range(n)
        for x in range(n)
        for scale, ratio in specs
    ]
    centre = torch.tensor(theirs)
    corners = 320 * torch.cat([centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2], 1)
    rows = lambda boxes: sorted([round(corner, 2) for corner in box] for box in boxes.tolist())
    assert len(ours) == 3 * 400 + 6 * 139
    for mine, other in zip(rows(ours), rows(corners), strict=True):
        assert mine == pytest.approx(other, abs=0.02)


def test_smaller_anchors_keep_the_square_half_as_large_as_the_oblongs():
    first = Anchors("ssdlite", 0.06, 6)._wh_pairs[0]
    assert first[0].tolist() == pytest.approx([0.03, 0.03])
    assert first[1:].prod(1).tolist() == pytest.approx([0.06**2] * 2)


def test_heads_of_the_first_map_predict_three_anchors_per_position():
    model = mobilenetv2(anchors="ssdlite").eval()
    with torch.no_grad():
        logits, offsets = model(torch.zeros(1, 3, 320, 320))
    assert logits.shape[1] == offsets.shape[1] == len(model.anchors) == 3 * 400 + 6 * 139
    assert model.head.classification_head.module_list[0][1].out_channels == 3 * 81


# ------------------------------------------------------------ old rows keep their identity


def test_every_detection_set_uses_them_and_an_older_row_is_another_run():
    for data in ("voc", "vocfolder"):
        run = resolve(data=data)
        assert (run.anchors, run.matching, run.strides) == ("ssdlite", "bipartite", "16,32")
    before = resolve(data="voc", anchors="torchvision", matching="argmax")
    found = content(vars(before))
    # A row without these fields then has this identity.
    assert not {"anchors", "matching", "strides"} & found.keys()
    others = [
        resolve(data="voc"),
        resolve(data="voc", anchors="torchvision"),
        resolve(data="voc", matching="argmax"),
    ]
    assert len({run.key() for run in (before, *others, resolve(data="voc", strides="8,16,32"))}) == 5


def test_the_committed_rows_keep_their_keys():
    rows = results.load(ROOT / "ablations" / "detection_bccd.csv").to_dict("records")
    assert len(rows) == 6
    for row in rows:
        found = identity.of_row(row)
        assert "anchors" not in found
        assert key_of(found) == row["key"]


@pytest.mark.slow
def test_an_older_checkpoint_keeps_its_anchors(tmp_path):
    """Its fields have no anchors; today's recipe would build another head, which the weights do not fit."""
    root = make_voc(tmp_path / "set", train=4, test=2)
    args = flags(data="vocfolder", data_dir=root, width=0.1, resolution=64, batch=4, epochs=1)
    args += flags(
        warmup=0.5, schedule="constant", anchors="torchvision", matching="argmax", threads=1, workers=0
    )
    call("hbo.fit", *args, "--out", tmp_path / "runs")
    row, folder = only_row(tmp_path / "runs")
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    for name in ("anchors", "matching", "strides"):
        del saved["hyper_parameters"][name], row[name]
    torch.save(saved, folder / "last.ckpt")
    (folder / "row.json").write_text(json.dumps(row))
    trained = checkpoint.trained(folder, {})
    assert (trained.run.anchors, trained.run.matching, trained.run.strides) == (
        "torchvision",
        "argmax",
        "16,32",
    )
    found = json.loads(call("hbo.evaluate", folder, "--json")[0])
    assert found["loss"] == pytest.approx(row["loss"], rel=1e-6)
    assert as_saved(row)["anchors"] == "torchvision"
    with pytest.raises(UserError, match=r"anchors \('torchvision' saved, 'ssdlite' asked\)"):
        checkpoint.trained(folder, {"anchors": "ssdlite"})


# ------------------------------------------------------------ objects that share their best anchor


def by_hand(overlaps: torch.Tensor) -> list[int]:
    """Repeatedly match the pair that overlaps most, until each object has an anchor: SSD's MatchBBox."""
    left, found = overlaps.clone(), {}
    while len(found) < len(overlaps):
        one, anchor = divmod(int(left.argmax()), left.shape[1])
        found[one] = anchor
        left[one] = left[:, anchor] = -1
    return [found[one] for one in range(len(overlaps))]


def test_bipartite_matching_is_that_of_ssds_code():
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        objects = int(torch.randint(1, 9, (1,), generator=draw))
        overlaps = torch.rand(objects, 12, generator=draw)
        overlaps[:, :3] += torch.rand(objects, 1, generator=draw)  # so that many objects share a best anchor
        assert bipartite(overlaps).tolist() == by_hand(overlaps)


def test_two_objects_that_share_their_best_anchor_each_get_one():
    """Two small objects at one place: no anchor overlaps either by 0.5, and the same one is best for both."""
    boxes = torch.tensor([[150.0, 150.0, 158.0, 162.0], [152.0, 152.0, 163.0, 160.0]])
    target = [{"boxes": boxes, "labels": torch.tensor([0, 1])}]
    matches = {}
    for matching in ("argmax", "bipartite"):
        model = Detector(build(width=0.1), 2, anchors="ssdlite", matching=matching)
        overlaps = box_iou(boxes, model.anchors)
        assert float(overlaps.max()) < 0.5
        assert len(set(overlaps.argmax(1).tolist())) == 1
        matches[matching] = model._matches(boxes)
        assert model.loss(
            torch.zeros(1, len(model.anchors), 3), torch.zeros(1, len(model.anchors), 4), target
        )[1] == int((matches[matching] >= 0).sum())
    assert sorted(set(matches["argmax"].tolist())) == [-1, 1]  # the first object has no anchor
    assert sorted(matches["bipartite"].tolist())[-2:] == [0, 1]


# ------------------------------------------------------------ a finer first map


def test_a_finer_map_comes_first_and_its_cost_is_counted():
    plain, fine = (mobilenetv2(anchors="ssdlite", strides=strides).eval() for strides in ("16,32", "8,16,32"))
    with torch.no_grad():
        maps = fine.backbone(torch.zeros(1, 3, 320, 320))
        logits, _ = fine(torch.zeros(1, 3, 320, 320))
    assert [m.shape[-1] for m in maps] == [40, 20, 10, 5, 3, 2, 1]
    assert logits.shape[1] == len(fine.anchors) == 3 * 1600 + 6 * 539
    # 192 channels (six times stage 3's 32): depthwise 3x3, then pointwise to classes and boxes of three
    # anchors. Stride 16, with 576 channels, now has six anchors instead of three.
    added = 1600 * (2 * 9 * 192 + 192 * 3 * (81 + 4)) + 400 * 576 * 3 * (81 + 4)
    assert cost.count(fine, 320)["total"].macs - cost.count(plain, 320)["total"].macs == added


@pytest.mark.parametrize("net", ["hbonet", "mobilenetv2", "torchvision:shufflenet_v2_x0_5"])
def test_finer_maps_of_any_network(net):
    model = Detector(
        build(net, width=0.1 if ":" not in net else None), 3, anchors="ssdlite", strides="4,8,16,32"
    ).train()
    logits, offsets = model(torch.rand(2, 3, 320, 320))
    assert logits.shape[1] == len(model.anchors)
    (logits.square().sum() + offsets.square().sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_a_network_without_the_finer_map_is_an_error():
    net = build(width=0.1)
    net.__dict__["_strides"] = {k: v for k, v in _strides(net).items() if k >= 8}
    with pytest.raises(UserError, match=r"strides=4,8,16,32: .* has no map of stride 4; it has 8, 16, 32"):
        Detector(net, 3, strides="4,8,16,32")


def _strides(net) -> dict[int, str]:
    net.eval()
    with torch.no_grad():
        net.pyramid(torch.zeros(1, 3, 64, 64))
    return net.__dict__["_strides"]


def test_another_set_of_strides_is_an_error():
    with pytest.raises(UserError, match="strides"):
        resolve(data="voc", strides="32,16")
