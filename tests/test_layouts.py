"""A data set's fingerprint: names and bytes of the files that are read, none for the set as published, never
cached.
"""

import dataclasses
import os
import shutil

import numpy as np
import pytest
from conftest import make_folder, make_market, make_voc
from PIL import Image

from hbo import files
from hbo.config import resolve
from hbo.errors import DataError
from hbo.tasks import SETS
from hbo.tasks.build import open_data
from hbo.tasks.classify import layout, sets
from hbo.tasks.detect import layout as voc
from hbo.tasks.reid import layout as market


def known_by(data, path):
    return SETS[data].looked(data, str(path))[1]


def key(data, path, **given):
    return resolve(data=data, data_dir=str(path), **given).key()


def pictures(root, suffix, seed=0, size=(40, 36)):
    """Two classes of noise in one format; compressed files are padded to one length."""
    draw = np.random.RandomState(seed)
    for part in ("train", "val"):
        for name in ("x", "y"):
            (root / part / name).mkdir(parents=True)
            for i in range(3):
                path = root / part / name / f"{i}{suffix}"
                Image.fromarray(draw.randint(0, 256, (*size, 3), dtype=np.uint8)).save(path)
                path.write_bytes(path.read_bytes().ljust(8000, b"\0"))
    return root


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".tif", ".png", ".jpg", ".webp"])
def test_equal_names_and_sizes_are_not_equal_content(tmp_path, suffix):
    one, two = (pictures(tmp_path / str(seed), suffix, seed) for seed in (0, 1))
    copy = shutil.copytree(one, tmp_path / "copy")
    assert {p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()} == {8000}
    assert key("imagefolder", one) == key("imagefolder", copy) != key("imagefolder", two)


def test_swapping_two_files_gives_another_set(tmp_path):
    root = pictures(tmp_path / "set", ".jpg")
    before = key("imagefolder", root)
    a, b = root / "train" / "x" / "0.jpg", root / "train" / "y" / "0.jpg"
    one, two = a.read_bytes(), b.read_bytes()
    a.write_bytes(two)
    b.write_bytes(one)
    assert key("imagefolder", root) != before


def test_a_change_on_disk_is_seen_within_the_process(tmp_path):
    """The same run object, with another picture of the same size and times."""
    root = pictures(tmp_path / "set", ".bmp")
    run = resolve(data="imagefolder", data_dir=str(root))
    before, path = run.key(), root / "val" / "x" / "0.bmp"
    stat, bytes_ = path.stat(), path.read_bytes()
    path.write_bytes(bytes_[:-9] + b"otherwise")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run.key() != before
    path.write_bytes(bytes_)
    assert run.key() == before
    with files.one_look():
        run.key()
        path.unlink()
        assert run.key() == before  # a run keeps the key that it started with
    assert run.key() != before


def test_a_backbone_trained_again_is_another(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"weights")
    run = resolve(data="voc", backbone_checkpoint=str(tmp_path))
    before = run.key()
    path.write_bytes(b"WEIGHTS")
    assert run.key() != before


LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", "._0.jpg", ".hidden")


def test_files_that_are_not_read_do_not_change_the_key(tmp_path):
    root = make_folder(tmp_path / "folder", {"x": 4, "y": 4}, {"x": 2, "y": 2})
    before = key("imagefolder", root)
    for folder in (root / "train", root / "train" / "x", root / "val" / "y"):
        for name in LITTER:
            (folder / name).write_bytes(b"litter")
    for name in (".cache", "__MACOSX"):
        (root / "train" / name / "x").mkdir(parents=True)
        (root / "train" / name / "x" / "._0.png").write_bytes(b"litter")
    assert key("imagefolder", root) == before
    assert len(open_data(resolve(data="imagefolder", data_dir=str(root), batch=2)).train) == 8


def test_voc_reads_what_its_lists_name(tmp_path):
    root = make_voc(tmp_path / "voc")
    before = key("vocfolder", root)
    images, notes = root / "JPEGImages", root / "Annotations"
    shutil.copy(images / "000000.jpg", images / "999999.jpg")
    shutil.copy(notes / "000000.xml", notes / "999999.xml")
    for name in (*LITTER, "._000000.jpg", "._000000.xml"):
        (images / name).write_bytes(b"litter")
        (notes / name).write_bytes(b"litter")
    assert key("vocfolder", root) == before
    assert len(open_data(resolve(data="vocfolder", data_dir=str(root), batch=2)).train) == 8
    picture = images / "000000.jpg"
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    assert key("vocfolder", root) != before


def test_market_reads_images(tmp_path):
    root = make_market(tmp_path / "market")
    before = key("marketfolder", root)
    for name in LITTER:
        (root / "query" / name).write_bytes(b"litter")
    assert key("marketfolder", root) == before
    picture = next((root / "query").glob("0*.jpg"))
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    assert key("marketfolder", root) != before


def test_a_set_too_large_to_read_is_identified_by_sizes_and_reported(tmp_path, monkeypatch):
    """Compressed images; the size of an uncompressed one says nothing, so it is read anyway."""
    run = {
        suffix: resolve(data="imagefolder", data_dir=str(pictures(tmp_path / suffix, suffix)))
        for suffix in (".jpg", ".bmp")
    }
    assert known_by("imagefolder", run[".jpg"].data_dir) == "names and bytes"
    monkeypatch.setattr(files, "READ_WHOLE", 1000)
    assert known_by("imagefolder", run[".jpg"].data_dir) == "names and sizes"
    before = {suffix: one.key() for suffix, one in run.items()}
    for suffix in run:
        path = tmp_path / suffix / "val" / "x" / f"0{suffix}"
        path.write_bytes(path.read_bytes()[:-9] + b"otherwise")
    assert run[".jpg"].key() == before[".jpg"]
    assert run[".bmp"].key() != before[".bmp"]
    (tmp_path / ".jpg" / "val" / "x" / "0.jpg").write_bytes(b"shorter")
    assert run[".jpg"].key() != before[".jpg"]


def as_published(monkeypatch, data, counts):
    """Pretend that the published set has these counts of images."""
    one = dataclasses.replace(SETS[data], look=lambda root: layout.look(root, counts))
    monkeypatch.setitem(SETS, data, one)


def test_part_of_a_published_set_has_its_own_key(tmp_path, monkeypatch):
    named = resolve(data="imagenet").key()
    assert key("imagenet", tmp_path / "not there") == named
    tenth, whole = (make_folder(tmp_path / str(n), {"x": n, "y": n}, {"x": 1, "y": 1}) for n in (2, 20))
    as_published(monkeypatch, "imagenet", (40, 2))
    (whole / "train" / "x" / "Thumbs.db").write_bytes(b"litter")
    assert key("imagenet", whole) == named
    assert known_by("imagenet", str(whole)) == "counts, as published"
    assert len({key("imagenet", tenth), key("imagefolder", tenth), named}) == 3


@pytest.mark.parametrize("data", ["imagefolder", "vocfolder", "marketfolder"])
def test_a_photograph_rotated_by_exif_changes_the_key(tmp_path, monkeypatch, data):
    """Earlier versions ignored the orientation. Every other folder keeps its fingerprint."""
    make = {
        "imagefolder": lambda root: make_folder(root, {"x": 2, "y": 2}, {"x": 1, "y": 1}),
        "vocfolder": make_voc,
    }
    root = make.get(data, make_market)(tmp_path / "set")
    path = sorted(path for path in root.rglob("*.*") if path.suffix in (".jpg", ".png"))[-1]

    def same_as_before():
        now = SETS[data].looked(data, str(root))[0]
        with monkeypatch.context() as patch:
            # The earlier code read no header.
            patch.setattr("hbo.headers.any_turned", lambda paths: False)
            return now == SETS[data].looked(data, str(root))[0]

    def save(orientation, kind="JPEG"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.zeros((80, 96, 3), np.uint8)).save(path, format=kind, exif=exif)

    assert same_as_before()
    for kept in (1, 0, 9):
        save(kept)
        assert same_as_before()
    save(6, "TIFF")  # PIL itself always rotated it
    assert same_as_before()
    for orientation in (2, 3, 6):
        save(orientation)
        assert not same_as_before()
    with monkeypatch.context() as patch:
        patch.setattr(files, "READ_WHOLE", 100)  # so that the set is known by its sizes
        assert not same_as_before()
        patch.setattr(files, "MANY", 3)  # more images than are checked one by one
        assert same_as_before()
    path.write_bytes(b"no image")
    assert same_as_before()


def test_imagenette_is_found_one_folder_deeper(tmp_path, monkeypatch):
    named = resolve(data="imagenette").key()
    assert key("imagenette", tmp_path) == named  # not downloaded yet
    make_folder(tmp_path / "imagenette2-320", {"x": 2}, {"x": 1})
    assert key("imagenette", tmp_path) != named
    as_published(monkeypatch, "imagenette", (2, 1))
    assert key("imagenette", tmp_path) == named


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_cifar_is_identified_by_torchvisions_checksums(tmp_path, monkeypatch, data):
    from hashlib import md5

    from torchvision import datasets

    kind, named = getattr(datasets, data.upper()), resolve(data=data).key()
    assert key(data, tmp_path) == named
    parts = [*kind.train_list, *kind.test_list]
    (tmp_path / kind.base_folder).mkdir()
    for name, _ in parts:
        (tmp_path / kind.base_folder / name).write_bytes(name.encode())
    assert key(data, tmp_path) != named
    monkeypatch.setattr(kind, "train_list", [[n, md5(n.encode()).hexdigest()] for n, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[n, md5(n.encode()).hexdigest()] for n, _ in kind.test_list])
    assert key(data, tmp_path) == named


def test_published_voc_and_market_are_identified_by_their_counts(tmp_path, monkeypatch):
    for year in ("VOC2007", "VOC2012"):
        make_voc(tmp_path / "VOCdevkit" / year)
    make_market(tmp_path / "Market-1501-v15.09.15")
    for data, counts in (("voc", (voc, "PUBLISHED_LISTS")), ("market1501", (market, "MARKET1501"))):
        named = resolve(data=data).key()
        assert key(data, tmp_path) != named
        root = tmp_path / "Market-1501-v15.09.15"
        parts = [len(market.images(root, part, market.MARKET)[0]) for part in market.PARTS]
        published = (8, 8, 4) if data == "voc" else tuple(parts)
        monkeypatch.setattr(*counts, published)
        assert key(data, tmp_path) == named


def test_elpv_is_identified_by_its_labels(monkeypatch):
    named = resolve(data="elpv", k=2)
    assert named.key() == "8faa71d03b"
    monkeypatch.setattr(sets, "ELPV", (2624, "another"))
    assert named.key() != "8faa71d03b"


@pytest.mark.parametrize("link", ["train/a/more.png", "train/c"])
def test_a_broken_link_is_not_an_image(tmp_path, link):
    root = make_folder(tmp_path / "set", {"a": 2, "b": 2}, {"a": 1, "b": 1})
    (tmp_path / "away").mkdir()
    (root / link).symlink_to(tmp_path / "not there")
    with pytest.raises(DataError, match=f"{link}: a link to .*not there, which does not exist"):
        layout.contents(root)
    (root / link).unlink()
    (root / link).symlink_to(root / "train" / ("b/0.png" if link.endswith("png") else "b"))
    assert sum(map(len, layout.contents(root)["train"].values())) == (5 if link.endswith("png") else 6)
