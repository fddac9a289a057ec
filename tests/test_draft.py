"""--decode draft: a JPEG is decoded no larger than its crop needs; the crop stays the same part of the photograph."""

import numpy as np
import pytest
import torch
from PIL import Image

from hbo.bench import packing
from hbo.config import resolve
from hbo.data.sources import Part, read_image
from hbo.errors import UserError
from hbo.tasks.build import open_data

GIVEN = {"data": "imagefolder", "resolution": 32, "batch": 2}
ORIENTATION = 0x0112


def smooth(width, height):
    """A photograph without detail that a smaller scale would lose."""
    small = np.random.RandomState(width).randint(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """JPEGs that are large, large and turned, small; a large PNG; a turned JPEG whose sides 2 does not divide."""
    root = tmp_path_factory.mktemp("large")
    for part in ("train", "val"):
        for label in ("a", "b"):
            (root / part / label).mkdir(parents=True)
            turned = Image.Exif()
            turned[ORIENTATION] = 6
            for name, size, exif in (
                ("0.jpg", (301, 225), Image.Exif()),
                ("1.jpg", (456, 608), turned),
                ("2.jpg", (40, 36), Image.Exif()),
                ("3.png", (600, 450), Image.Exif()),
                ("4.jpg", (450, 601), turned),
            ):
                smooth(*size).save(root / part / label / name, exif=exif, quality=95)
    return root


def opened(root, **given):
    return open_data(resolve(data_dir=str(root), **{**GIVEN, **given}))


def test_the_scale_is_the_smallest_that_does_not_enlarge_the_crop(large):
    images = opened(large, decode="draft").train
    for height, width, shrink in (
        (256, 300, 8),
        (255, 300, 4),
        (128, 999, 4),
        (127, 999, 2),
        (64, 64, 2),
        (63, 64, 1),
    ):
        assert images.augment.shrink([{"height": height, "width": width}]) == shrink


@pytest.mark.parametrize("given", [{}, {"flip": "both", "jitter": 0.3}], ids=str)
def test_crops_are_those_of_whole_photographs(large, given):
    """A photograph that is decoded whole has the same bits. A smaller copy, turned or not, gives nearly the
    same pixels, and those of another crop are far from them.
    """
    drafts, whole = (opened(large, decode=decode, **given).train for decode in ("draft", "whole"))
    seen = set()
    for epoch in range(6):
        for i, path in enumerate(whole.source.paths):
            ours, theirs = drafts[epoch, i][0], whole[epoch, i][0]
            if path.endswith(("2.jpg", "3.png", "4.jpg")):
                assert torch.equal(ours, theirs)
            else:
                image, _, size = drafts.draft(epoch, i)
                assert size == read_image(path).size[::-1]
                seen.add(round(max(size) / max(image.size)))
                assert (ours.int() - theirs.int()).abs().float().mean() < 1
                other = whole[epoch + 100, i][0]
                assert (ours.int() - other.int()).abs().float().mean() > 4
    assert seen == {2, 4, 8}


def test_the_row_has_the_share_and_the_key_is_another(large):
    data = opened(large, decode="draft")
    smaller = [
        data.train.draft(0, i)[0].size < read_image(path).size
        for i, path in enumerate(data.train.source.paths)
    ]
    assert 0 < data.facts["drafted"] <= 0.6
    assert data.facts["drafted"] == sum(smaller) / len(smaller)
    assert data.facts["jpeg_decoder"] == f"PIL {Image.__version__}"
    plain = resolve(data_dir=str(large), **GIVEN)
    assert resolve(data_dir=str(large), decode="draft", **GIVEN).identity() == plain.identity() | {
        "decode": "draft"
    }
    assert "drafted" not in opened(large).facts


def test_a_part_of_a_set_is_drafted_too(large):
    """As `--per_class` and `--holdout` take one."""
    images = opened(large, decode="draft", per_class=2).train
    assert isinstance(images.source, Part)
    assert images[0, 0][0].shape == (3, 32, 32)


def test_an_archive_is_drafted_like_its_folder(large, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "index"))
    packed = packing.pack({part: large / part for part in ("train", "val")}, tmp_path / "packed", "tar")
    ours, theirs = (opened(root, decode="draft") for root in (packed, large))
    assert ours.facts == theirs.facts
    assert all(torch.equal(ours.train[0, i][0], theirs.train[0, i][0]) for i in range(len(theirs.train)))


@pytest.mark.parametrize("given", [
    {"data": "elpv"}, {"data": "imagenet", "crop": "pad"}, {"data": "imagenet", "cache": "disk"},
    {"data": "imagenet", "auto_augment": "rand"}, {"data": "imagenet", "augment": "device"},
], ids=str)  # fmt: skip
def test_where_nothing_can_be_drafted_it_is_an_error(given):
    with pytest.raises(
        UserError, match=r"decode=draft: .* needs a folder of images, --crop random, --cache none"
    ):
        resolve(decode="draft", **given)
