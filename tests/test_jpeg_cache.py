"""--cache jpeg: training photographs as PIL would save them, exact validation photographs, and a key of its
own.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from test_cache_files import damage

from hbo.bench import packing
from hbo.config import resolve
from hbo.data import jpeg
from hbo.errors import DataError, UserError
from hbo.tasks.build import open_data

GIVEN = {"data": "imagefolder", "resolution": 32, "batch": 4, "cache_size": 48}


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """Photographs that JPEG compresses well: gradients, in two shapes."""
    root, draw = tmp_path_factory.mktemp("smooth"), np.random.RandomState(0)
    for part in ("train", "val"):
        for label in ("a", "b"):
            (root / part / label).mkdir(parents=True)
            for i in range(3):
                small = Image.fromarray(draw.randint(0, 256, (4, 5, 3), dtype=np.uint8))
                small.resize([(150, 120), (90, 110)][i % 2], Image.Resampling.BICUBIC).save(
                    root / part / label / f"{i}.png"
                )
    return root


def opened(root, where, kind="jpeg", **given):
    return open_data(resolve(data_dir=str(root), cache=kind, cache_dir=str(where), **{**GIVEN, **given}))


def test_the_cache_has_pils_bytes(smooth, tmp_path):
    data = opened(smooth, tmp_path)
    for i, path in enumerate(data.train.source.paths):
        with Image.open(path) as image:
            short = image.convert("RGB").resize(
                (48 * image.width // min(image.size), 48 * image.height // min(image.size)), 2
            )
        short.save(file := io.BytesIO(), "JPEG", quality=90)
        kept, seen = data.train.pixels[i]
        assert np.array_equal(kept.permute(1, 2, 0), np.asarray(Image.open(file)))
        assert seen == image.size[::-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_both_decoders_give_the_same_pixels(channels, monkeypatch):
    """Hence the key does not depend on the decoder that a machine has."""
    pytest.importorskip("simplejpeg")
    small = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (1, channels, 9, 7), dtype=np.uint8))
    image = torch.nn.functional.interpolate(small, (161, 203), mode="bilinear")[0].permute(1, 2, 0)
    content = torch.frombuffer(bytearray(jpeg.encoded(image)), dtype=torch.uint8)
    found = []
    for name in ("PIL", "simplejpeg"):
        monkeypatch.setattr(jpeg, "DECODER", name)
        found.append(jpeg.decoded(content, channels))
    assert found[0].shape == (channels, 161, 203)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["PIL", "simplejpeg"])
def test_the_row_names_the_decoder(name, smooth, tmp_path, monkeypatch):
    """It names none if no JPEG of a cache is decoded."""
    monkeypatch.setattr(jpeg, "DECODER", name)
    monkeypatch.setattr(jpeg, "version", {"pillow": "1.2", "simplejpeg": "3.4"}.__getitem__)
    found = opened(smooth, tmp_path).facts["jpeg_decoder"]
    assert found == {"PIL": "PIL 1.2", "simplejpeg": "simplejpeg 3.4"}[name]
    assert "jpeg_decoder" not in opened(smooth, tmp_path, "disk").facts


def test_training_crops_differ_little_and_evaluation_not_at_all(smooth, tmp_path):
    plain = open_data(resolve(data_dir=str(smooth), **GIVEN | {"cache_size": None}))
    kept, decoded = (opened(smooth, tmp_path, kind) for kind in ("jpeg", "disk"))
    for item in [(epoch, i) for epoch in range(3) for i in range(6)]:
        a, b = (data.train[item][0].int() for data in (kept, decoded))
        assert 0 < (a - b).abs().float().mean() < 6
        assert torch.equal(kept.val[0, item[1]][0], plain.val[0, item[1]][0])
    sizes = [data.train.pixels.path.stat().st_size - 4096 for data in (kept, decoded)]
    assert sizes[0] < sizes[1] / 2
    assert kept.val.pixels.path == decoded.val.pixels.path


def test_a_jpeg_cache_changes_the_key():
    """It differs from a run without a cache and from one with a decoded cache."""
    given = {"data": "imagenet"}
    plain, disk, ram, kept = (
        resolve(cache=kind, **given).identity() for kind in ("none", "disk", "ram", "jpeg")
    )
    assert disk == ram
    assert kept == disk | {"cached_jpeg": 90}
    assert disk == plain | {"cached_side": 256}


def test_an_archive_gives_the_same_cache_as_its_folder(smooth, tmp_path, monkeypatch, capsys):
    """In the order of the archive's images, and only once for both."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "index"))
    parts = {part: smooth / part for part in ("train", "val")}
    packed = packing.pack(parts, tmp_path / "packed", "tar")
    a, b = opened(packed, tmp_path / "one"), opened(smooth, tmp_path / "two")
    assert all(torch.equal(a.train.pixels[i][0], b.train.pixels[i][0]) for i in range(6))
    assert not np.all(np.diff(a.train.pixels.index["offset"]) > 0)
    capsys.readouterr()
    opened(smooth, tmp_path / "one")
    assert "cache: 6 images" not in capsys.readouterr().err


def test_a_damaged_cache_is_an_error(smooth, tmp_path):
    path = opened(smooth, tmp_path).train.pixels.path
    damage(path, "pixels")
    with pytest.raises(DataError, match="is damaged"):
        opened(smooth, tmp_path)


@pytest.mark.parametrize("given", [
    {"data": "elpv"}, {"data": "imagenet", "crop": "pad"}, {"data": "digits", "crop": "random"}, {"data": "market1501"},
])  # fmt: skip
def test_without_random_crops_of_photographs_it_is_an_error(given):
    with pytest.raises(UserError, match=r"cache=jpeg: keeps photographs .* use --cache disk"):
        resolve(cache="jpeg", **given)
