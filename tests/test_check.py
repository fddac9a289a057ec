"""Broken images: one command lists them all, and a run skips them by name if asked to."""

import pytest
from conftest import call, make_folder, make_market, make_voc, only_row
from flagged import flags
from PIL import Image

from hbo.config import resolve
from hbo.data.check import images_of, main, unreadable
from hbo.errors import DataError, UserError
from hbo.runs import identity
from hbo.tasks.build import open_data


def cut(path):
    """Keep the header and half of the rest."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.fixture
def root(tmp_path):
    """16 training and 8 validation images, of which three and one are broken: truncated, not an image, empty,
    16-bit.
    """
    root = make_folder(tmp_path / "set", {"a": 8, "b": 8}, {"a": 4, "b": 4})
    cut(root / "train" / "a" / "0.png")
    (root / "train" / "b" / "1.png").write_bytes(b"no image")
    (root / "train" / "b" / "2.png").write_bytes(b"")
    Image.new("I;16", (40, 40)).save(root / "val" / "a" / "3.png")
    return root


BROKEN = ["train/a/0.png", "train/b/1.png", "train/b/2.png", "val/a/3.png"]


def opened(root, data="imagefolder", **given):
    return open_data(resolve(data=data, data_dir=str(root), **{"batch": 2, "resolution": 64, **given}))


def test_every_bad_image_is_listed(root):
    out, err = call("hbo.data.check", root, expect=2)
    *lines, last = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(root / name) for name in BROKEN]
    assert last == f"24 images in {root}, 4 of them cannot be read"
    assert "Traceback" not in err


def test_a_sound_set_is_reported(root, capsys):
    for name in BROKEN:
        (root / name).unlink()
    main([str(root)])
    assert capsys.readouterr().out == f"20 images in {root}, all of them can be read\n"


def test_what_training_refuses_is_listed_too(root, tmp_path, capsys):
    """Files in class folders that are not images, and empty classes; but not VOC's annotations."""
    for name in BROKEN:
        (root / name).unlink()
    (root / "train" / "a" / "notes.txt").write_text("x")
    (root / "train" / "b" / ".DS_Store").write_text("x")
    (root / "val" / "c" / "inner").mkdir(parents=True)
    with pytest.raises(SystemExit):
        main([str(root)])
    assert capsys.readouterr().out.splitlines() == [
        f"{root / 'train' / 'a' / 'notes.txt'}: not an image by its name",
        f"{root / 'val' / 'c'}: an empty class",
        f"20 images in {root}, all of them can be read",
    ]
    with pytest.raises(
        DataError, match=r"notes\.txt: not an image by its name; .*hbo\.data\.check .* lists all"
    ):
        opened(root)
    (root / "train" / "a" / "notes.txt").unlink()
    with pytest.raises(
        DataError, match=rf"c: an empty class; .*; python -m hbo\.data\.check {root} lists all$"
    ):
        opened(root)
    main([str(make_voc(tmp_path / "voc"))])


def test_only_the_folders_of_a_set_are_checked(root, tmp_path, capsys):
    assert len(images_of(str(root), "imagefolder")) == 24
    (root / "test").mkdir()
    (root / "test" / "0.png").write_bytes(b"no image")
    assert len(images_of(str(root), None)) == 25
    assert len(images_of(str(root), "imagefolder")) == 24
    assert unreadable([str(root / "test" / "0.png")]).keys() == {str(root / "test" / "0.png")}
    for folder, word in ((tmp_path / "none", "no such folder"), (root / "empty", "holds no images")):
        (root / "empty").mkdir(exist_ok=True)
        with pytest.raises(SystemExit) as stop:
            main([str(folder)])
        assert stop.value.code == 2
        assert word in capsys.readouterr().err


def test_at_most_skip_bad_images_are_skipped_by_name(root, capsys):
    data = opened(root, skip_bad=4)
    assert (len(data.train), len(data.val)) == (13, 7)
    assert (data.facts["skipped_train"], data.facts["skipped_val"]) == (3, 1)
    assert [said.split(": ")[0] for said in data.facts["skipped"]] == [str(root / name) for name in BROKEN]
    assert capsys.readouterr().err.count("skipped: ") == 4
    assert data.train.labels == [0] * 7 + [1] * 6
    for i in range(len(data.train)):
        data.train[0, i]
    with pytest.raises(DataError, match="skip_bad=3: 4 images cannot be read"):
        opened(root, skip_bad=3)
    with pytest.raises(DataError, match=r"1\.png"):
        opened(root)


def test_detection_and_re_identification_skip_bad_images_too(tmp_path):
    voc, market = make_voc(tmp_path / "voc"), make_market(tmp_path / "market")
    cut(voc / "JPEGImages" / "000001.jpg")
    (voc / "JPEGImages" / "000009.jpg").write_bytes(b"no image")
    data = opened(voc, "vocfolder", skip_bad=2)
    assert (len(data.train), len(data.val), data.facts["skipped_train"], data.facts["skipped_val"]) == (
        7,
        3,
        1,
        1,
    )
    assert data.facts["images_left_out"] == 0
    before = opened(market, "marketfolder", batch=4)
    cut(sorted((market / "bounding_box_train").iterdir())[0])
    cut(sorted((market / "query").iterdir())[0])
    data = opened(market, "marketfolder", batch=4, skip_bad=9)
    assert (len(data.train), len(data.val)) == (len(before.train) - 1, len(before.val) - 1)
    assert (data.facts["skipped_train"], data.facts["skipped_val"]) == (1, 1)


def test_a_list_is_checked_as_a_run_reads_it(root):
    """Errors of a run say to type `python -m hbo.data.check FILE.csv`."""
    rows = [f"{path.relative_to(root)},{path.parent.name}\n" for path in sorted(root.glob("train/*/*"))]
    (root / "l.csv").write_text("path,label\n" + "".join(rows))
    for data in (None, "imagefolder"):
        found = unreadable(images_of(str(root / "l.csv"), data))
        assert sorted(found) == [str(root / name) for name in BROKEN if name.startswith("train")]


def test_skip_bad_is_in_the_key_if_set(root):
    run = resolve(data="imagefolder", data_dir=str(root))
    assert "skip_bad" not in run.identity()
    other = resolve(data="imagefolder", data_dir=str(root), skip_bad=4)
    assert other.key() != run.key()
    assert identity.of_row({"data": "imagefolder", "skip_bad": 4.0})["skip_bad"] == 4


def test_only_folders_take_skip_bad(tmp_path):
    for data in ("digits", "elpv", "cifar10"):
        with pytest.raises(UserError, match="skip_bad=1: needs a folder of images"):
            resolve(data=data, skip_bad=1)
    with pytest.raises(UserError, match="skip_bad=-1: must not be negative"):
        resolve(data="imagefolder", skip_bad=-1)


def test_the_row_names_skipped_images_and_evaluation_skips_the_same(root, tmp_path):
    args = flags(data="imagefolder", data_dir=root, resolution=32, batch=2, epochs=1, limit_batches=4)
    args += flags(width=0.1, lr=0.001, threads=1, workers=0, skip_bad=4, out=tmp_path / "runs")
    call("hbo.fit", *args)
    row, folder = only_row(tmp_path / "runs")
    assert (row["train_images"], row["val_images"], row["skipped_train"], row["skipped_val"]) == (13, 7, 3, 1)
    assert len(row["skipped"]) == 4
    out, err = call("hbo.evaluate", folder)
    assert "7 images" in out
    assert err.count("skipped: ") == 1
    _, err = call("hbo.evaluate", folder, "--skip_bad", 0, expect=2)
    assert err.endswith(
        f"; python -m hbo.data.check {root} lists every such image, --skip_bad N skips at most N\n"
    )
