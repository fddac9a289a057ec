"""Images that are unused or used twice are reported and recorded in the row; no advice would delete a
photograph.
"""

import shutil

import numpy as np
import pytest
from conftest import call, make_folder, make_market, make_voc, only_row
from flagged import flags
from PIL import Image

from hbo import files
from hbo.config import resolve
from hbo.errors import DataError
from hbo.tasks import counts
from hbo.tasks.build import make, open_data


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "set", {"a": 3, "b": 3}, {"a": 2, "b": 2})


def opened(root, data="imagefolder", **given):
    return open_data(resolve(data=data, data_dir=str(root), **{"batch": 2, "resolution": 64, **given}))


def refused(root, data="imagefolder"):
    with pytest.raises(DataError) as error:
        make(resolve(data=data, data_dir=str(root), batch=2, resolution=64), opened(root, data))
    assert "\n" not in str(error.value)
    return str(error.value)


def other_noise(folder, number, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        pixels = np.random.RandomState(100 + i).randint(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"n{i}{suffix}", format="PNG")


def test_a_sound_folder_prints_nothing(root, capsys):
    facts = opened(root).facts
    assert (facts["images_left_out"], facts["also_in_val"], facts["classes_not_in_val"]) == (0, 0, [])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("where", "suffix"), [
    ("train/a/more", ".png"), ("val/b/more/deeper", ".png"), ("train/a/more", ".HEIC"), ("test/a", ".png"),
    (".", ".jpg"), ("unsorted", ".gif"),
])  # fmt: skip
def test_unused_images_are_counted_and_named(root, capsys, where, suffix):
    other_noise(root / where, 5, suffix)
    data = opened(root)
    assert len(data.train) == 6
    assert data.facts["images_left_out"] == 5
    assert data.facts["left_out"] == [f"{where}/: 5"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert f"5 images are not used ({where}/: 5)" in line


def test_hidden_files_and_other_files_are_not_counted(root, capsys):
    other_noise(root / ".cache", 2)
    other_noise(root / "__MACOSX" / "a", 1)
    (root / "__MACOSX" / "a" / "n0.png").rename(root / "__MACOSX" / "a" / "._n0.png")
    (root / "README.md").write_text("x")
    (root / "train" / "a" / "back").symlink_to(root, target_is_directory=True)
    assert opened(root).facts["images_left_out"] == 0
    assert capsys.readouterr().err == ""


def test_images_in_subfolders_of_a_class_get_no_advice(root):
    for path in list((root / "train" / "a").iterdir()):
        (root / "train" / "a" / "inner").mkdir(exist_ok=True)
        path.rename(root / "train" / "a" / "inner" / path.name)
    said = refused(root)
    assert "no images itself, but 3 in its subfolders (inner)" in said
    assert "remove" not in said


def test_images_in_unsupported_formats_get_no_advice(root):
    other_noise(root / "train" / "a", 2, ".heic")
    said = refused(root)
    assert "n0.heic" in said
    assert "2 such files here" in said
    assert "convert images to" in said
    assert "remove" not in said


def test_a_class_missing_from_val_is_reported(root, capsys):
    shutil.rmtree(root / "val" / "a")
    assert opened(root).facts["classes_not_in_val"] == ["a"]
    assert "'a': no validation images" in capsys.readouterr().err


def test_photographs_in_both_parts_are_counted(root, capsys):
    shutil.copy(root / "train" / "a" / "0.png", root / "val" / "a" / "copy.png")
    assert opened(root).facts["also_in_val"] == 1
    assert "1 of the 5 validation images is also a training image, byte for byte" in capsys.readouterr().err
    shutil.copy(root / "train" / "a" / "1.png", root / "val" / "a" / "more.png")
    opened(root)
    assert "2 of the 6 validation images are also training images" in capsys.readouterr().err
    shutil.copy(root / "train" / "a" / "0.png", root / "train" / "b" / "copy.png")
    held = open_data(resolve(data="imagefolder", data_dir=str(root), batch=2, resolution=64, holdout=0.5))
    # The training and validation images of this run, whatever lies in val/.
    assert held.facts["also_in_val"] in (
        0,
        1,
    )


def test_a_copy_in_another_class_is_a_labelling_error(root, capsys):
    copy = root / "val" / "b" / "copy.png"
    shutil.copy(root / "train" / "a" / "0.png", copy)
    assert opened(root).facts["also_in_val"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of the 5 validation images is a training image of another class, byte for byte" in line
    assert f"({copy} is 'b', {root / 'train' / 'a' / '0.png'} is 'a'): a labelling error; correct" in line
    assert "too good" not in line


def test_a_set_too_large_to_read_is_reported_as_unchecked(root, monkeypatch):
    monkeypatch.setattr(files, "READ_WHOLE", 10)
    shutil.copy(root / "train" / "a" / "0.png", root / "val" / "b" / "copy.png")
    assert opened(root).facts["also_in_val"] is None


def test_detection_and_re_identification_report_it_too(tmp_path, capsys):
    voc, market = make_voc(tmp_path / "voc"), make_market(tmp_path / "market")
    assert opened(voc, "vocfolder").facts["images_left_out"] == 0
    assert opened(market, "marketfolder", batch=4).facts["images_left_out"] == 0
    assert capsys.readouterr().err == ""
    images = voc / "JPEGImages"
    shutil.copy(images / "000000.jpg", images / "000008.jpg")
    shutil.copy(images / "000001.jpg", images / "alone.jpg")
    other_noise(images / "more", 2)
    facts = opened(voc, "vocfolder").facts
    assert (facts["images_left_out"], facts["left_out"], facts["also_in_val"]) == (
        3,
        ["./: 1", "more/: 2"],
        1,
    )
    other_noise(market / "query" / "more", 2)
    shutil.copy(next((market / "bounding_box_train").iterdir()), next((market / "query").glob("*.jpg")))
    facts = opened(market, "marketfolder", batch=4).facts
    assert (facts["images_left_out"], facts["left_out"], facts["also_in_val"]) == (2, ["query/more/: 2"], 1)
    assert len(capsys.readouterr().err.splitlines()) == 4


# ------------------------------------------------------------ a single class, folders one level off


def test_a_single_class_is_an_error_before_training(tmp_path):
    root = make_folder(tmp_path / "set", {"only": 4}, {"only": 2})
    assert "contains one class, only/, and a classifier needs two" in refused(root)
    with pytest.raises(DataError, match="one class"):
        counts("imagefolder", str(root))
    args = flags(data="imagefolder", data_dir=root, batch=2, out=tmp_path / "runs")
    _, err = call("hbo.fit", *args, expect=2)
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_folder_one_level_off_is_named(root):
    right = f"use --data_dir {root}, which contains train/ and val/"
    assert right in refused(root.parent)
    assert right in refused(root / "train")
    assert "it contains a/, b/" in refused(root / "train")
    deep = root.parent / "deep"
    for part in ("train", "val"):
        shutil.copytree(root, deep / part / "all")
        other_noise(deep / part / "all", 2)
    assert f"use --data_dir {deep / 'train' / 'all'}" in refused(deep)
    assert "contains one class, all/" in refused(deep)


def test_classes_a_level_too_deep_are_named(root):
    deep = root.parent / "deep"
    for part in ("train", "val"):
        shutil.copytree(root / part, deep / part / "all")
        other_noise(deep / part / "all", 2)
    assert "all contains a/, b/: classes must be in" in refused(deep)


def test_a_single_identity_is_an_error_and_other_layouts_name_the_nearest_folder(tmp_path):
    market = make_market(tmp_path / "market", train=1)
    assert "one identity" in refused(market, "marketfolder")
    assert f"use --data_dir {market}" in refused(tmp_path, "marketfolder")
    voc = make_voc(tmp_path / "voc")
    assert f"use --data_dir {voc}" in refused(tmp_path, "vocfolder")


def test_the_row_has_it(root, tmp_path):
    other_noise(root / "train" / "a" / "more", 3)
    args = flags(data="imagefolder", data_dir=root, resolution=32, batch=2, epochs=1, limit_batches=1)
    _, err = call("hbo.fit", *args, "--width", 0.1, "--lr", 0.001, "--threads", 1, "--out", tmp_path / "runs")
    row, _ = only_row(tmp_path / "runs")
    assert (row["images_left_out"], row["left_out"], row["also_in_val"]) == (3, ["train/a/more/: 3"], 0)
    assert err.count("warning: ") == 1
