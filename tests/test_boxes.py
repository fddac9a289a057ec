"""Photographs with boxes in training and evaluation: order and augmentation are functions of (seed, epoch,
index).
"""

import math

import pytest
import torch
from conftest import make_voc
from test_voc import opened

from hbo.config import resolve
from hbo.data.sampling import EvalBatches, TrainBatches, loader
from hbo.tasks.build import open_data


def batches(data, run, workers: int = 0, progress: int = 0):
    order = TrainBatches(len(data.train), run.batch, run.seed, progress=lambda: progress)
    return list(loader(data.train, order, workers))


def same(a, b) -> bool:
    return all(
        torch.equal(x[0], y[0])
        and torch.equal(x[2], y[2])
        and all(torch.equal(s[k], t[k]) for s, t in zip(x[1], y[1], strict=True) for k in s)
        for x, y in zip(a, b, strict=True)
    )


def test_order_and_augmentation_are_functions_of_seed_epoch_and_index(tmp_path):
    root = make_voc(tmp_path / "set", train=8, test=2)
    run = resolve(data="vocfolder", data_dir=str(root), batch=4, resolution=64, seed=3)
    data = open_data(run)
    here = batches(data, run)
    torch.manual_seed(99)  # the global random state has no effect
    assert same(here, batches(open_data(run), run))
    assert same(here, batches(data, run, workers=2))
    assert same(here[1:], batches(data, run, progress=1))  # resumed after one batch
    assert not same(here, batches(data, run, progress=2))  # another epoch
    for epoch in range(2):
        one, two = data.train[(epoch, 5)], data.train[(epoch, 5)]
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1]["boxes"], two[1]["boxes"])
    assert not torch.equal(data.train[(0, 5)][0], data.train[(1, 5)][0])
    other = open_data(resolve(data="vocfolder", data_dir=str(root), batch=4, resolution=64, seed=4))
    assert not torch.equal(data.train[(0, 5)][0], other.train[(0, 5)][0])
    assert torch.equal(data.val[(0, 1)][0], other.val[(7, 1)][0])  # validation images are never augmented


def test_evaluation_sees_each_photograph_once(tmp_path):
    data = opened(make_voc(tmp_path / "set", train=4, test=5))
    seen = [i for *_, index in loader(data.val, EvalBatches(5, 2), 0) for i in index.tolist()]
    assert seen == list(range(5))


def inside(image, box) -> list[float]:
    """Mean colour inside a box, without its border."""
    x1, y1, x2, y2 = box
    return (
        image[:, math.ceil(y1 + 2) : int(y2 - 2), math.ceil(x1 + 2) : int(x2 - 2)]
        .float()
        .mean((1, 2))
        .tolist()
    )


@pytest.mark.parametrize("ssd_augment", [True, False])
@pytest.mark.parametrize("flip", ["horizontal", "both"])
def test_boxes_follow_their_pixels(tmp_path, flip, ssd_augment):
    """Each box stays on its coloured object through zoom-out, crop, flip and resize; without photometric
    distortion, which permutes channels, it keeps the colour of its class.
    """
    data = opened(
        make_voc(tmp_path / "set", train=8, test=2), ssd_augment=ssd_augment, flip=flip, resolution=128
    )
    looked, places = 0, set()
    for epoch in range(12):
        for i in range(8):
            image, target, _ = data.train[(epoch, i)]
            boxes = target["boxes"]
            assert ((boxes >= 0) & (boxes <= 128)).all()
            assert len(boxes) == len(target["labels"]) == len(target["difficult"])
            for box, label in zip(boxes.tolist(), target["labels"].tolist(), strict=True):
                if min(box[2] - box[0], box[3] - box[1]) < 8:
                    continue
                looked += 1
                places.add((i, round(box[0]), round(box[1])))
                red, green, blue = inside(image, box)
                assert max(red, green, blue) - min(red, green, blue) > 60
                if not ssd_augment:
                    assert (red > blue + 100) == (label == 0)
    assert looked > 100
    objects = sum(len(t["boxes"]) for t in data.train.targets)
    assert len(places) >= (5 * objects if ssd_augment else 2 * objects)


def test_zoom_out_and_crop_are_ssds(tmp_path):
    """SSD's augmentation shrinks objects (zoom-out onto grey) and enlarges them (crop); without it their size
    is fixed.
    """
    root = make_voc(tmp_path / "set", train=8, test=2)

    def areas(**kwargs) -> torch.Tensor:
        data = opened(root, resolution=128, **kwargs)
        boxes = torch.cat([data.train[(epoch, i)][1]["boxes"] for epoch in range(12) for i in range(8)])
        return (boxes[:, 2:] - boxes[:, :2]).prod(1)

    fixed, moved = areas(), areas(ssd_augment=True)
    assert moved.min() < fixed.min() / 4
    assert moved.max() > fixed.max() * 1.5
