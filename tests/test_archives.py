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
from resumed import same_run, wait_for

from hbo.bench import packing
from hbo.bench.packing import of_folder, write_parquet, write_tar
from hbo.config import resolve
from hbo.data.sampling import TrainBatches, loader
from hbo.errors import UserError
from hbo.tasks.build import open_data
from hbo.tasks.classify import layout


def pack(root, to, form, **how):
    return packing.pack({part: root / part for part in ("train", "val")}, to, form, **how)


@pytest.fixture(autouse=True)
def index_root(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("index")))


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
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
    assert f"{there}: validation-* is used for validation, test-* is not used" in opened(there).warnings


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
