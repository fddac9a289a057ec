"""Images in archives are read as the unpacked folder: same key, order, draws and row; errors name what is
wrong.
"""

import io
import json
import os
import pickle
import re
import shutil
import tarfile

import numpy as np
import pytest
import torch
from conftest import call, only_row, start
from flagged import flags
from PIL import Image
from test_fit import same_run, wait_for

from hbo import archives
from hbo.bench import packing
from hbo.bench.packing import of_folder, write_parquet, write_tar
from hbo.config import resolve
from hbo.data.sampling import TrainBatches, loader
from hbo.errors import DataError, UserError
from hbo.tasks.build import open_data
from hbo.tasks.classify import layout


def pack(root, to, form, **how):
    return packing.pack({part: root / part for part in ("train", "val")}, to, form, **how)


@pytest.fixture(autouse=True)
def index_root(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("index")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEG files whose names are unique across classes."""
    root, draw = tmp_path_factory.mktemp("set"), np.random.RandomState(0)
    for part, number in (("train", 6), ("val", 3)):
        for label in ("ape", "bee"):
            (root / part / label).mkdir(parents=True)
            for i in range(number):
                image = Image.fromarray(draw.randint(0, 256, (60, 75, 3), dtype=np.uint8))
                image.save(root / part / label / f"{label}{i}.jpg", quality=90)
    return root


@pytest.fixture(scope="module", params=["tar", "cls", "parquet"])
def packed(request, folder, tmp_path_factory):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    form = "parquet" if request.param == "parquet" else "tar"
    return pack(folder, tmp_path_factory.mktemp("packed") / "set", form, cls=request.param == "cls")


def opened(root, **given):
    return open_data(
        resolve(data="imagefolder", data_dir=str(root), **{"batch": 4, "resolution": 32, **given})
    )


def batches(images, workers: int = 0, done: int = 0):
    order = TrainBatches(len(images), 4, 0, progress=lambda: done)
    return torch.cat([images for images, *_ in loader(images, order, workers)])


def test_an_archive_equals_its_folder(folder, packed):
    """Key, recipe, labels, order, draws, names and facts."""
    one, two = (resolve(data="imagefolder", data_dir=str(root)) for root in (folder, packed))
    assert one.identity() == two.identity()
    assert "images" in one.identity()
    assert (one.epochs, one.batch, one.lr) == (two.epochs, two.batch, two.lr)
    assert layout.count(folder) == layout.count(packed) == (12, 6, 2)
    assert layout.training_images(packed, 5) == 5
    a, b = opened(folder), opened(packed)
    assert (a.classes, a.facts, a.warnings) == (b.classes, b.facts, b.warnings)
    assert a.train.labels == b.train.labels
    assert torch.equal(batches(a.train), batches(b.train))
    assert torch.equal(a.val[0, 5][0], b.val[0, 5][0])


def test_so_does_an_archive_with_held_out_or_skipped_images(folder, packed, tmp_path):
    for given in ({"holdout": 0.5}, {"per_class": 2}):
        assert torch.equal(batches(opened(folder, **given).train), batches(opened(packed, **given).train))
    cached = opened(folder, cache="disk", cache_dir=str(tmp_path))
    assert torch.equal(
        batches(cached.train), batches(opened(packed, cache="disk", cache_dir=str(tmp_path)).train)
    )
    assert len(list(tmp_path.iterdir())) == 2  # one cache for both: a training and a validation file


def test_forked_and_spawned_workers_read_the_same(packed):
    images = opened(packed).train
    alone = batches(images)
    assert torch.equal(alone, batches(images, workers=1))
    assert torch.equal(alone, batches(pickle.loads(pickle.dumps(images))))


def test_a_broken_image_is_named_as_in_a_folder(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "set")
    image = root / "train" / "bee" / "bee2.jpg"
    image.write_bytes(image.read_bytes()[:700])
    found = [opened(where, skip_bad=1) for where in (root, pack(root, tmp_path / "packed", "tar"))]
    skipped = [re.sub(r"^.*/train/", "", data.facts["skipped"][0]) for data in found]
    assert skipped[0] == skipped[1]
    assert skipped[0].startswith("bee/bee2.jpg")
    assert [len(data.train) for data in found] == [11, 11]
    out, _ = call("hbo.data.check", tmp_path / "packed", expect=2)
    assert "bee/bee2.jpg" in out
    assert "18 images in" in out


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_folders_result(folder, packed, tmp_path):
    """A run on an archive is killed within an epoch and resumes bit for bit as the run on the folder."""
    args = flags(data="imagefolder", resolution=32, batch=2, epochs=5, width=0.1, lr=0.001)
    args += flags(threads=1, workers=0)
    call("hbo.fit", *args, "--data_dir", folder, "--out", tmp_path / "folder")
    again = [*args, "--data_dir", packed, "--out", tmp_path / "packed"]
    process = start("hbo.fit", *again, "--checkpoint_every", 0.01)
    wait_for(lambda: list(tmp_path.glob("packed/*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    call("hbo.fit", *again)
    (row, _), (theirs, where) = (only_row(tmp_path / name) for name in ("folder", "packed"))
    assert theirs["resumed_at"]
    assert row["key"] == theirs["key"]
    theirs |= {name: row[name] for name in ("data_dir", "folder")}  # the path and the folder's name
    (where / "row.json").write_text(json.dumps(theirs))
    same_run(tmp_path / "folder", tmp_path / "packed")


# ------------------------------------------------------------ ImageNet


def test_torchvisions_archives_are_imagenets_folder(tmp_path):
    from scipy.io import savemat

    root, ids = make_imagenet(tmp_path / "folder"), ["n00000002", "n00000001"]
    there = tmp_path / "archives"
    there.mkdir()
    with tarfile.open(there / "ILSVRC2012_img_train.tar", "w") as outer:
        for label in ids:
            samples = [s for s in of_folder(root / "train") if s[0] == label]
            inner = write_tar(
                tmp_path / f"{label}.tar", [("", name, content) for _, name, content in samples], cls=False
            )
            outer.add(inner, inner.name)
    val = sorted(of_folder(root / "val"), key=lambda sample: sample[1])
    write_tar(
        there / "ILSVRC2012_img_val.tar", [("", name, content) for _, name, content in val[::-1]], cls=False
    )
    synsets = np.array(
        [(1, ids[0], "x", "x", 0), (2, ids[1], "y", "y", 0), (3, "n00000009", "z", "z", 2)],
        [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")],
    )
    savemat(meta := io.BytesIO(), {"synsets": synsets})
    truth = "".join(f"{ids.index(label) + 1}\n" for label, *_ in val).encode()
    with tarfile.open(there / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        for name, content in (
            ("meta.mat", meta.getvalue()),
            ("ILSVRC2012_validation_ground_truth.txt", truth),
        ):
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            kit.addfile(member, io.BytesIO(content))
    assert resolve(data_dir=str(there)).identity() == resolve(data_dir=str(root)).identity()
    assert torch.equal(batches(opened(root).train), batches(opened(there).train))
    assert layout.look(there, (4, 4)) == layout.look(root, (4, 4)) == (None, "counts, as published")
    for part in ("train", "val"):  # ignored if they lie beside the unpacked folders
        shutil.copytree(root / part, there / part)
    assert layout.kind(there) == "parts"
    shutil.rmtree(there / "train")
    shutil.rmtree(there / "val")
    (there / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    assert "ILSVRC2012_devkit_t12.tar.gz: no such file" in refused(there)


def make_imagenet(root):
    """Two photographs per class and split, under ImageNet's names."""
    for part in ("train", "val"):
        for k, label in enumerate(("n00000001", "n00000002")):
            (root / part / label).mkdir(parents=True)
            for i in range(2):
                name = f"{label}_{[3, 20][i]}" if part == "train" else f"ILSVRC2012_val_{2 * i + k + 1:08d}"
                shade = 60 * k + 20 * i + (part == "val")
                Image.new("RGB", (40, 50), (shade, 0, 0)).save(root / part / label / f"{name}.JPEG")
    return root


def test_hugging_faces_imagenet_is_the_folder(tmp_path):
    """Its file names end with the class, which would change the order: 3 and 20."""
    pytest.importorskip("pyarrow")
    root, there = make_imagenet(tmp_path / "folder"), tmp_path / "parquet"
    there.mkdir()
    for part, called in (("train", "train"), ("val", "validation")):
        samples = [
            (f"words, {label}", f"{name[:-5]}_{label}.JPEG", content)
            for label, name, content in of_folder(root / part)
        ]
        write_parquet(there / f"{called}-00000-of-00001.parquet", samples[::-1])
    write_parquet(there / "test-00000-of-00001.parquet", samples[:1])
    assert resolve(data_dir=str(there)).identity() == resolve(data_dir=str(root)).identity()
    assert torch.equal(batches(opened(root).train), batches(opened(there).train))
    assert layout.look(there, (4, 4))[0] is None
    assert f"{there}: validation-* is reported, test-* is not used" in opened(there).warnings


def test_imagenet_under_other_names_is_another_set(tmp_path):
    """Other names give another order, so the published key does not apply."""
    root, there = make_imagenet(tmp_path / "folder"), tmp_path / "tar"
    there.mkdir()
    for part in ("train", "val"):
        renamed = [
            (label, f"{i:06d}.jpg", content) for i, (label, _, content) in enumerate(of_folder(root / part))
        ]
        write_tar(there / f"{part}-0.tar", renamed, cls=True)
    found, _ = layout.look(there, (4, 4))
    assert found is not None
    assert layout.look(root, (4, 4))[0] is None


# ------------------------------------------------------------ errors


def refused(root, **given) -> str:
    with pytest.raises(UserError) as error:
        opened(root, **given)
    return str(error.value)


@pytest.fixture
def tars(folder, tmp_path):
    return pack(folder, tmp_path / "tars", "tar", shards=3, cls=True)


def test_a_missing_shard_is_named(folder, tars, tmp_path):
    (tars / "train-000001.tar").rename(tmp_path / "elsewhere")
    assert "train-000001.tar: no such file, of 3 shards" in refused(tars)
    (tmp_path / "elsewhere").rename(tars / "train-000001.tar")
    (tars / "train-000000.tar").rename(tmp_path / "elsewhere")
    for path in sorted(tars.glob("*.tar")):
        path.rename(path.with_name(path.stem + "-of-000003.tar"))
    assert "train-000000-of-000003.tar: no such file, of 3 shards" in refused(tars)


def test_duplicate_shards_and_mixed_formats_are_errors(folder, tars):
    other = shutil.copy(tars / "train-000001.tar", tars / "train-1.tar")
    assert "train-000001.tar and train-1.tar: two sets of shards, or duplicates" in refused(tars)
    os.rename(other, tars / "cats-train-000001.tar")
    assert "of several formats or sets; keep one" in refused(tars)
    os.rename(tars / "cats-train-000001.tar", tars / "val-000000.parquet")
    assert re.search(r"holds train-\S+.tar and val-000000.parquet, of several formats", refused(tars))
    os.remove(tars / "val-000000.parquet")
    shutil.copytree(folder / "train", tars / "train")
    assert "holds train-000000.tar and train/; keep one of them" in refused(tars)
    shutil.rmtree(tars / "train")
    shutil.copytree(folder / "train" / "ape", tars / "ape")
    assert "holds train-000000.tar and ape/; keep one of them" in refused(tars)
    shutil.rmtree(tars / "ape")
    (tars / "list.csv").write_text("path,label\n")
    assert "holds train-000000.tar and list.csv, which --data_dir may name" in refused(tars)
    (tars / "list.csv").unlink()
    for path in tars.glob("val-*"):
        path.unlink()
    assert "holds no shards of val-* or valid-*" in refused(tars)


@pytest.mark.parametrize("keep", [-700, -10240, 512 + 300, 0])
def test_a_truncated_tar_is_named(tars, keep):
    """Cut within an image, after the last one, within the first, and at the start."""
    path = tars / "train-000001.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(m.offset_data + m.size for m in tar)
    path.write_bytes(content[: {-700: end - 700, -10240: end + (-end) % 512}.get(keep, keep)])
    assert re.search(r"train-000001.tar: .*truncated", refused(tars))


def test_images_without_class_duplicate_or_misnamed_are_named(folder, tmp_path):
    root = tmp_path / "tars"
    pack(folder, root, "tar", shards=1)
    path, samples = root / "train-000000.tar", of_folder(folder / "train")

    def with_more(more, cls=False):
        write_tar(path, samples, cls)
        with tarfile.open(path, "a") as tar:
            member = tarfile.TarInfo(more)
            tar.addfile(member, io.BytesIO(b""))
        return refused(root)

    assert "alone.jpg: has no class; put it into CLASS/, or add alone.cls" in with_more("alone.jpg")
    assert "alone.jpg: has no class; alone.cls must hold it" in with_more("alone.jpg", cls=True)
    assert "ape/ape1.jpg occurs twice" in with_more("ape/ape1.jpg")
    assert "ape/notes.txt: not an image by its name" in with_more("ape/notes.txt")
    assert "mixed formats: classes by the folder in other/" in with_more("other/ape/ape9.jpg")
    write_tar(path, samples, cls=False)
    write_tar(root / "train-000001.tar", [("ape", "ape9.jpg", b"")], cls=True)
    assert "mixed formats: classes by a .cls, in" in refused(root)
    write_tar(root / "train-000001.tar", [("a/b", "ape9.jpg", b"")], cls=True)
    assert "'a/b' is not a class name" in refused(root)
    assert "val_split=0.2" in refused(root, val_split=0.2)


def test_a_shard_that_changed_after_indexing_is_an_error(tars):
    images = opened(tars).train
    images[0, 0]
    for path in tars.glob("train-*"):
        os.utime(path, (1000, 1000))
    with pytest.raises(DataError, match=r"train-00000\d.tar: has changed since it was indexed; start again"):
        images[0, 0]
    assert opened(tars).train[0, 0][1] == 0


def test_a_broken_index_says_what_to_delete(tars, tmp_path):
    opened(tars)
    for path in (tmp_path / os.environ["XDG_CACHE_HOME"] / "hbo" / "archives").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert "delete it to build it again" in refused(tars)


def test_parquet_with_other_columns_truncated_or_without_classes_is_named(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = pack(folder, tmp_path / "set", "parquet", shards=1)
    path = root / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    assert "train-00000-of-00001.parquet: not a parquet file, or truncated" in refused(root)
    for columns, said in (
        ({"image": [{"bytes": b"x", "path": "a.jpg"}], "label": [-1]}, "row 0 of row group 0: has no class"),
        ({"image": [{"bytes": b"x", "path": None}], "label": [0]}, "path None: not an image by its name"),
        ({"image": [{"bytes": None, "path": "a.jpg"}], "label": [0]}, "has no image bytes"),
        ({"image": [b"x"], "label": [0]}, "has the columns image, label; it must have image"),
    ):
        parquet.write_table(pa.table(columns), path)
        assert said in refused(root)


def test_parquet_without_pyarrow_names_the_extra(tars, monkeypatch):
    for path in tars.glob("*.tar"):
        path.rename(path.with_suffix(".parquet"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "reading parquet needs pyarrow: pip install -e '.[parquet]'" in refused(tars)


def test_published_names_of_shards_are_found(tmp_path):
    """Names of sets on Hugging Face: numbered from 0 or 1, with a total, with a hash, or a single file."""
    names = ["imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"]
    assert [len(shards.paths) for shards in found_of(tmp_path / "wds", names).values()] == [2, 1]
    names = ["train-00000-of-00002-a1b2c3.parquet", "train-00001-of-00002-d4e5f6.parquet", "test-1.parquet"]
    there = found_of(tmp_path / "hf", names)
    assert [path.name for path in there["train"].paths] == names[:2]
    assert (there["val"].name, len(there["val"].paths)) == ("test", 1)
    assert found_of(tmp_path / "none", ["train-0.txt", "training-0.tar", "train.tar"]) == {}


def found_of(root, names):
    root.mkdir()
    for name in names:
        (root / name).touch()
    return archives.found(root)


def members(path, *more):
    """A tar of these members beside a class's image each, and a val like it."""
    path.mkdir()
    image = io.BytesIO()
    Image.new("RGB", (40, 40)).save(image, "PNG")
    for part in ("train", "val"):
        with tarfile.open(path / f"{part}-0.tar", "w") as tar:
            for name, kind, target in (("./a/0.png", None, ""), ("./b/0.png", None, ""), *more):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind or tarfile.REGTYPE, target
                member.size = 0 if kind else len(image.getvalue())
                tar.addfile(member, None if kind else io.BytesIO(image.getvalue()))
    return path


def test_hidden_folders_of_a_tar_are_ignored(tmp_path):
    root = members(tmp_path / "set", ("./.thumbs/1.png", None, ""), ("./a/.x/2.png", None, ""))
    assert {name: len(inside) for name, inside in archives.members(root, "train").items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_in_a_tar_is_not_skipped_in_silence(tmp_path, kind):
    """A link holds no bytes, but the unpacked folder would have one more image."""
    root = members(tmp_path / "set", ("./a/1.png", kind, "./b/0.png"))
    assert "train-0.tar: ./a/1.png: a link to ./b/0.png; pack the files" in refused(root)


def test_shards_without_an_image_are_named(tmp_path):
    root = members(tmp_path / "set")
    with tarfile.open(root / "val-0.tar", "w"):
        pass
    assert "val-0.tar: holds no images" in refused(root)


@pytest.mark.parametrize("label", [1.0, float("nan"), [1]])
def test_a_label_of_parquet_is_a_number_or_a_name(tmp_path, label):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for part in ("train", "val"):
        columns = {"image": [{"bytes": b"x", "path": "a.jpg"}], "label": [label]}
        parquet.write_table(pa.table(columns), tmp_path / f"{part}-0.parquet")
    assert "must be a whole number, or a class's name" in refused(tmp_path)
