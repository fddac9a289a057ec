"""A cache's file: found again by the contents of the set, an error if stale or damaged, and never too large
for its disk.
"""

import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from test_cache import batches, files, linked, photographs

from hbo.data import cache
from hbo.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("cache_memory")


def test_a_cache_is_found_by_the_contents_of_the_folder(folder, tmp_path, capsys):
    photographs(folder, tmp_path)
    said = capsys.readouterr().err
    assert "cache: 12 images of imagefolder" in said
    before = [(path, path.stat().st_mtime_ns) for path in files(tmp_path)]
    shutil.copytree(folder, tmp_path / "moved")  # with the files' times
    photographs(tmp_path / "moved", tmp_path, k=2, seed=5, epochs=3)
    assert [(path, path.stat().st_mtime_ns) for path in files(tmp_path)] == before
    photographs(folder, tmp_path, resolution=32)
    assert len(files(tmp_path)) == 2 * len(before)


@pytest.mark.parametrize("size", [64, 1000])
def test_the_announced_size_is_the_size(folder, tmp_path, size, capsys):
    images = photographs(folder, tmp_path, cache_size=size).train
    assert (
        f"cache: 12 images of imagefolder, {cache.gb(images.pixels.path.stat().st_size)}, into"
        in capsys.readouterr().err
    )


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[-100:]
    elif how == "pixels":
        content[len(content) // 2] ^= 1
    elif how == "index":
        content[-3] ^= 1
    elif how == "head":
        content[:10] = b"0123456789"
    elif how == "empty":
        content.clear()
    path.write_bytes(content)


@pytest.mark.parametrize(("how", "word"), [
    ("cut", "truncated"), ("pixels", "is damaged"), ("index", "index is damaged"), ("head", "not a cache of HBO"),
    ("empty", "not a cache of HBO"),
])  # fmt: skip
def test_a_damaged_cache_is_an_error_that_says_what_to_delete(folder, tmp_path, how, word):
    path = photographs(folder, tmp_path).train.pixels.path
    damage(path, how)
    with pytest.raises(DataError, match=word) as error:
        photographs(folder, tmp_path)
    assert f"delete {path.parent}" in str(error.value)
    shutil.rmtree(path.parent)
    photographs(folder, tmp_path)


def test_a_copy_with_other_file_times_is_the_same_set(folder, tmp_path, capsys):
    """As jobs copy it to their local disks: `cp -r`."""
    first = photographs(folder, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    for i, path in enumerate(sorted(copy.rglob("*.png"))):
        os.utime(path, (1000 + i, 1000 + i))
    capsys.readouterr()
    again = photographs(copy, tmp_path)
    assert "have other times" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(batches(first.train), batches(again.train), strict=True))
    photographs(copy, tmp_path)
    assert capsys.readouterr().err == ""  # only one pass over the files
    assert {path: path.stat().st_mtime_ns for path in before} == before
    image = copy / "train" / "a" / "1.png"
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)
    with pytest.raises(DataError, match="stale, the images have changed"):
        photographs(copy, tmp_path)


def test_another_set_with_equal_names_sizes_and_times_is_an_error(folder, tmp_path):
    """As in two archives that were packed with one fixed time."""
    one, two = (shutil.copytree(folder, tmp_path / name / "set") for name in ("one", "two"))
    content = bytearray((two / "train" / "a" / "1.png").read_bytes())
    content[-1] ^= 1
    (two / "train" / "a" / "1.png").write_bytes(content)
    for path in [*one.rglob("*.png"), *two.rglob("*.png")]:
        os.utime(path, (1000, 1000))
    photographs(one, tmp_path)
    with pytest.raises(DataError, match="stale, the images have changed"):
        photographs(two, tmp_path)


def test_a_stale_cache_is_an_error(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "set")
    photographs(root, tmp_path)
    image = root / "train" / "a" / "1.png"
    content = bytearray(image.read_bytes())
    content[-1] ^= 1  # rewritten with the same size
    image.write_bytes(content)
    os.utime(image, (1, 1))
    with pytest.raises(DataError, match="stale, the images have changed"):
        photographs(root, tmp_path)


def test_too_little_space_is_an_error_with_both_sizes_before_writing(tmp_path):
    """At this resolution two thousand photographs would take more than the free space of this disk."""
    root = linked(tmp_path / "set", 2000, size=40)
    free = shutil.disk_usage(tmp_path).free
    side = int((1.3 * free / 3 / 2000) ** 0.5)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    # If it were written after all, it would not last long.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, former[1]))
    try:
        with pytest.raises(
            DataError, match=r"needs [\d.]+ GB in .*, where [\d.]+ GB are free; use another --cache_dir"
        ) as error:
            photographs(root, tmp_path, resolution=side, crop="none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    needs = float(str(error.value).split("needs ")[1].split()[0])
    assert needs == pytest.approx(1.3 * free / 1e9, rel=0.01)
    assert not list((tmp_path / "caches").iterdir())


def test_a_broken_image_is_named_and_no_cache_is_left(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "set")
    image = root / "train" / "b" / "2.png"
    image.write_bytes(image.read_bytes()[:300])  # its header is intact
    with pytest.raises(DataError, match=str(image)):
        photographs(root, tmp_path)
    assert not list((tmp_path / "caches").iterdir())


def test_without_a_file_system_in_memory_cache_ram_is_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MEMORY", tmp_path / "none")
    with pytest.raises(UserError, match="use --cache disk"):
        photographs(folder, tmp_path, "ram")
