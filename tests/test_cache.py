"""The cache: the pixels of the plain path, the same crops from smaller copies, concurrent and killed
processes, and the device.
"""

import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, make_folder, only_row, start
from forked import Process
from PIL import Image
from resumed import same_run, wait_for

from hbo.config import resolve
from hbo.data.augment import unpack
from hbo.data.prefetch import prefetched
from hbo.data.sampling import EvalBatches, TrainBatches, loader
from hbo.tasks.build import open_data

pytestmark = pytest.mark.usefixtures("cache_memory")


def opened(kind: str, where: Path, **given):
    return open_data(resolve(cache=kind, cache_dir=str(where / "caches"), **{"batch": 4, **given}))


def batches(images, workers: int = 0, updates: int = 0) -> list[torch.Tensor]:
    return [b[0] for b in loader(images, TrainBatches(len(images), 4, 0, progress=lambda: updates), workers)]


def photographs(folder: Path, where: Path, kind: str = "disk", **given):
    return opened(kind, where, data="imagefolder", data_dir=str(folder), **{"resolution": 64, **given})


def linked(root: Path, number: int, size: int) -> Path:
    """A folder with one photograph under many names."""
    make_folder(root, {"a": 1}, {"a": 1}, size=size)
    first = root / "train" / "a" / "0.png"
    for i in range(1, number):
        os.link(first, first.with_name(f"{i}.png"))
    return root


def files(where: Path) -> list[Path]:
    return sorted((where / "caches").glob("*/*"))


# The last enlarges.
EXACT = [
    {"data": "elpv", "per_class": 8, "holdout": 0.5, "jitter": 0.2},
    {"data": "elpv", "per_class": 8, "holdout": 0.5, "crop": "random"},
    {"data": "digits", "per_class": 2, "crop": "pad"},
    {"data": "fake", "crop": "random", "flip": "both", "jitter": 0.3, "resolution": 32},
    {"data": "imagefolder", "crop": "none", "resolution": 48},
    {"data": "imagefolder", "crop": "pad", "resolution": 64, "jitter": 0.3, "flip": "both"},
    {"data": "imagefolder", "crop": "none", "resolution": 96, "holdout": 0.3, "per_class": 5},
]


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("given", EXACT, ids=lambda given: "-".join(map(str, given.values())))
def test_cached_pixels_equal_uncached_pixels(given, kind, folder, tmp_path):
    given = given | ({"data_dir": str(folder)} if given["data"] == "imagefolder" else {})
    plain, cached = (opened(k, tmp_path, **given) for k in ("none", kind))
    assert (cached.train.pixels.path.parent.parent.name == "caches") == (kind == "disk")
    for a, b in ((plain.train, cached.train), (plain.val, cached.val)):
        assert a.labels == b.labels
        for item in [(epoch, i) for epoch in (0, 1) for i in range(min(len(a), 40))]:
            assert torch.equal(a[item][0], b[item][0])
    for a, b in zip(batches(plain.train), batches(cached.train), strict=True):
        assert torch.equal(a, b)
    assert resolve(cache=kind, **given).key() == resolve(**given).key()
    assert cached.train.upsampled() == {}


def test_evaluation_on_cached_photographs_is_exact(folder, tmp_path):
    plain, cached = (
        opened(k, tmp_path, data="imagefolder", data_dir=str(folder), resolution=64) for k in ("none", "disk")
    )
    a, b = (list(loader(d.val, EvalBatches(6, 4), 0)) for d in (plain, cached))
    for x, y in zip(a, b, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    """Photographs whose pixels encode their position from 0 to 255: red is the column, green the row."""
    root, height, width = tmp_path_factory.mktemp("chart"), 360, 480
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 0 * x], 2).round().astype(np.uint8)
    for part in ("train", "val"):
        (root / part / "c").mkdir(parents=True)
        for i in range(4):
            Image.fromarray(pixels).save(root / part / "c" / f"{i}.png")
    return root


def corners(image: torch.Tensor) -> torch.Tensor:
    """The position in the photograph, from 0 to 255, of each corner of a crop."""
    return image[:2].float()[:, [0, 0, -1, -1], [0, -1, 0, -1]]


def test_a_crop_is_the_same_part_of_the_photograph(chart, tmp_path):
    """Within a pixel of the small copy (each edge is rounded to the nearest), flipped or not."""
    given = {"data": "imagefolder", "data_dir": str(chart), "resolution": 48, "batch": 2}
    plain, cached, large = (
        opened("none", tmp_path, **given).train,
        opened("disk", tmp_path, **given, cache_size=120).train,
        opened("disk", tmp_path, **given, cache_size=1000).train,
    )
    # Never enlarged.
    assert [images.pixels[0][0].shape for images in (cached, large)] == [
        (3, 120, 160),
        (3, 360, 480),
    ]
    for item in [(epoch, i) for epoch in range(25) for i in range(4)]:
        a, b = (corners(images[item][0]) for images in (plain, cached))
        assert (a - b).abs().max() <= 1.0 * 255 / 120
        assert (
            plain[item][0].int() - large[item][0].int()
        ).abs().max() <= 1  # the same box; PIL rounds differently


def test_enlarged_crops_are_counted_as_the_recipe_draws_them(chart, tmp_path):
    """Against a distribution drawn in NumPy without any pixels: areas, log-uniform ratios, ten tries."""
    given = {"data": "imagefolder", "data_dir": str(chart), "resolution": 96, "batch": 2, "crop_area": 0.2}
    found = opened("disk", tmp_path, **given, cache_size=120).train.upsampled()
    draw = np.random.RandomState(0)
    area = 360 * 480 * draw.uniform(0.2, 1, (100_000, 10))
    ratio = np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3), area.shape))
    w, h = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (w <= 480) & (h <= 360)
    first = fits.argmax(1)[:, None]
    side = np.minimum(np.take_along_axis(w, first, 1), np.take_along_axis(h, first, 1))[:, 0]
    side[~fits.any(1)] = 360
    assert found["cache_upsampled"] == pytest.approx((side / 3 < 96).mean(), abs=0.03)
    assert found["uncached_upsampled"] == pytest.approx((side < 96).mean(), abs=0.03)


def test_forked_and_spawned_workers_map_the_same_file(folder, tmp_path):
    images = opened("disk", tmp_path, data="imagefolder", data_dir=str(folder), resolution=64).train
    alone = torch.cat(batches(images))
    assert torch.equal(alone, torch.cat(batches(images, workers=1)))
    text = pickle.dumps(images)
    assert len(text) < 20_000 < images.pixels.path.stat().st_size
    assert torch.equal(alone, torch.cat(batches(pickle.loads(text))))


# ------------------------------------------------------------ processes

OPEN = """
import sys
from hbo.runs import signals
signals.listen()
from hbo.config import resolve
from hbo.tasks.build import open_data
data = open_data(resolve(data="imagefolder", data_dir=sys.argv[1], cache="disk", cache_dir=sys.argv[2], batch=4, resolution=64))
print(data.train.pixels.flat.sum().item())
"""


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory):
    """Takes a few seconds to decode."""
    return linked(tmp_path_factory.mktemp("slow"), 200, size=700)


def opening(folder: Path, where: Path) -> Process:
    return start("-c", OPEN, folder, where / "caches")


@pytest.mark.slow
def test_one_of_two_processes_builds_and_both_read(slow_folder, tmp_path):
    both = [opening(slow_folder, tmp_path) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert sum("200 images of imagefolder" in err for _, err in said) == 1
    assert [path.name for path in files(tmp_path)] == ["pixels", "pixels"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_build_leaves_no_complete_cache(slow_folder, tmp_path, number):
    process = opening(slow_folder, tmp_path)
    written = lambda: (
        sum(path.stat().st_size for path in (tmp_path / "caches").glob("*/pixels.part-*")) > 100_000
    )
    wait_for(written, process)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not list((tmp_path / "caches").glob("*/pixels"))
    assert bool(files(tmp_path)) == (number == signal.SIGKILL)
    again = opening(slow_folder, tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert "200 images of imagefolder" in err
    assert [path.name for path in files(tmp_path)] == ["pixels", "pixels"]
    assert int(out) > 0


# With so few images per batch a rate of 0.05 can overflow; this comparison does not need to learn.
RUN = ["--resolution", 32, "--batch", 4, "--epochs", 5, "--width", 0.1, "--lr", 0.001]
RUN += ["--threads", 1, "--workers", 0, "--cache", "disk"]


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    """A run with a cache: its flags and its folder."""
    where = tmp_path_factory.mktemp("unbroken")
    args = ["--data", "imagefolder", "--data_dir", folder, "--cache_dir", where / "caches", *RUN]
    call("hbo.fit", *args, "--out", where / "runs")
    return args, where / "runs"


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(unbroken, tmp_path):
    args, whole = unbroken
    process = start("hbo.fit", *args, "--out", tmp_path, "--checkpoint_every", 0.01)
    wait_for(lambda: list(tmp_path.glob("*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    call("hbo.fit", *args, "--out", tmp_path)
    assert only_row(tmp_path)[0]["resumed_at"]
    same_run(whole, tmp_path)
    row, _ = only_row(whole)
    assert 0 < row["uncached_upsampled"] < row["cache_upsampled"] < 1


# ------------------------------------------------------------ on the device


@pytest.mark.parametrize("kind", ["none", "disk"])
@pytest.mark.parametrize("given", [*EXACT, {"data": "imagefolder", "resolution": 64, "jitter": 0.3}], ids=lambda g: "-".join(map(str, g.values())))  # fmt: skip
def test_augmentation_on_the_device_equals_the_loaders(given, kind, folder, tmp_path):
    """The same draws, and the same bits except where the loader jitters or resizes with PIL."""
    given = given | ({"data_dir": str(folder)} if given["data"] == "imagefolder" else {})
    here, there = (opened(kind, tmp_path, **given, augment=where).train for where in ("loader", "device"))
    pil = given["data"] == "imagefolder" and (given.get("jitter") or (kind == "none" and "crop" not in given))
    for a, raw in zip(batches(here, updates=5), batches(there, updates=5), strict=True):
        b = unpack(raw, there.augment) if there.on_device else raw  # pyright: ignore
        assert (a.int() - b.int()).abs().max() <= (3 if pil else 0)


@pytest.mark.slow
def test_a_run_augmented_on_the_device_learns_the_same(unbroken, tmp_path):
    """On the CPU bit for bit: unpacking a batch during training gives the batch that the loader makes."""
    args, whole = unbroken
    call("hbo.fit", *args, "--augment", "device", "--out", tmp_path)
    losses = [np.load(only_row(out)[1] / "outcomes.npz")["loss"] for out in (whole, tmp_path)]
    np.testing.assert_array_equal(*losses)


def test_on_a_cpu_batches_are_not_copied_ahead(folder, tmp_path):
    images = photographs(folder, tmp_path).train
    plain = loader(images, TrainBatches(len(images), 4, 0), 0)
    assert prefetched(plain, torch.device("cpu")) is plain


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_copied_ahead_equal_the_loaders(folder, tmp_path):
    images = photographs(folder, tmp_path).train
    order = TrainBatches(len(images), 4, 0)
    ahead = prefetched(loader(images, order, 0), torch.device("cuda"))
    for a, b in zip(loader(images, order, 0), ahead, strict=True):
        assert all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True))
    raw = photographs(folder, tmp_path, augment="device").train
    for a, (b, *_) in zip(
        batches(images), prefetched(loader(raw, order, 0), torch.device("cuda")), strict=True
    ):
        assert (a.int() - unpack(b, raw.augment).cpu().int()).abs().max() <= 1
