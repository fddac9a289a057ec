"""One's own photographs: each layout, its validation images, and errors that say what was found."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import call, make_folder, only_row
from flagged import flags

from hbo.config import resolve
from hbo.data.audit import names_of, paths_of
from hbo.errors import DataError, UserError
from hbo.sweep.plan import images
from hbo.tasks import SETS, counts
from hbo.tasks.build import open_data
from hbo.tasks.classify import listed

BRIEF = {"data": "imagefolder", "batch": 2, "epochs": 1, "lr": 0.01, "resolution": 32}


@pytest.fixture
def split_set(tmp_path):
    return make_folder(tmp_path / "set", {"ants": 10, "bees": 20}, {"ants": 3, "bees": 4})


@pytest.fixture
def alone(tmp_path):
    """A folder with classes only."""
    make_folder(tmp_path / "made", {"ants": 10, "bees": 20}, {})
    return (tmp_path / "made" / "train").rename(tmp_path / "alone")


def run_on(path, **given):
    return resolve(**{**BRIEF, "data_dir": str(path)} | given)


def opened(path, reported=False, **given):
    return open_data(run_on(path, **given), reported=reported)


def refused(path, **given):
    with pytest.raises(UserError) as error:
        opened(path, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(part):
    return [str(Path(*Path(path).parts[-2:])) for path in paths_of(part.source)]


def fingerprint(path):
    return SETS["imagefolder"].looked("imagefolder", str(path))[0]


def listing(path, rows, header=("path", "label", "split"), suffix="jpg"):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)
    return path


# ------------------------------------------------------------ folders with splits


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test", "Valid"])
def test_the_validation_folder_has_four_possible_names(split_set, name):
    before, key = opened(split_set), run_on(split_set).key()
    (split_set / "val").rename(split_set / "away")
    (split_set / "away").rename(split_set / name)
    after = opened(split_set)
    assert (len(after.train), len(after.val), after.val.labels) == (30, 7, before.val.labels)
    assert run_on(split_set).key() == key
    assert counts("imagefolder", str(split_set)) == (30, 7, 2)
    assert after.facts.get("reported_folder", "val/") == f"{name}/"


def test_of_several_validation_folders_the_first_is_used_and_the_others_named(split_set, capsys):
    key = run_on(split_set).key()
    shutil.copytree(split_set / "val", split_set / "test")
    assert len(opened(split_set).val) == 7
    (line,) = capsys.readouterr().err.splitlines()
    assert "7 images are not used (test/ants/: 3, test/bees/: 4)" in line
    assert "val/ is used for validation, test/ is not used" in line
    assert run_on(split_set).key() == key


def test_suffixes_are_read_in_any_case(split_set):
    for i, path in enumerate(sorted((split_set / "train" / "ants").iterdir())):
        path.rename(path.with_suffix((".PNG", ".Png")[i % 2]))
    assert len(opened(split_set).train) == 30


def test_a_folder_without_validation_says_what_to_type(split_set):
    shutil.rmtree(split_set / "val")
    said = refused(split_set)
    assert "must contain train/ and val/ (or valid/, validation/, test/)" in said
    assert "it contains train/" in said


# ------------------------------------------------------------ folders of classes only


def test_val_split_takes_a_share_of_each_class(alone, capsys):
    data = opened(alone, val_split=0.2)
    assert capsys.readouterr().err == ""
    assert data.classes == ["ants", "bees"]
    assert [Counter(part.labels) for part in (data.train, data.val)] == [{0: 8, 1: 16}, {0: 2, 1: 4}]
    together = names(data.train) + names(data.val)
    assert sorted(together) == sorted(str(p.relative_to(alone)) for p in alone.glob("*/*"))
    assert data.facts["also_in_val"] == data.facts["images_left_out"] == 0
    assert counts("imagefolder", str(alone)) == (30, 0, 2)
    assert images(run_on(alone, val_split=0.2)) == (24, 6, 2)


def test_a_class_with_one_image_is_not_called_left_out_when_only_validation_is_read(tmp_path, capsys):
    make_folder(tmp_path / "made", {"ants": 1, "bees": 20}, {})
    data = opened((tmp_path / "made" / "train").rename(tmp_path / "one"), val_split=0.2, reported=True)
    assert (len(data.val), data.facts["images_left_out"]) == (4, 0)
    assert "not used" not in capsys.readouterr().err


def test_val_split_does_not_depend_on_the_seed(alone):
    """All arms and seeds of a study have the same validation images; the share is in the key."""
    one, two = (opened(alone, val_split=0.2, seed=seed) for seed in (0, 7))
    assert names(one.val) == names(two.val)
    keys = {run_on(alone, val_split=share).key() for share in (0.2, 0.3)}
    assert len(keys) == 2
    copy = shutil.copytree(alone, alone.parent / "copy")
    assert run_on(copy, val_split=0.2).key() in keys


def test_a_class_of_one_photograph_is_named_with_the_reason(alone, capsys):
    for path in sorted((alone / "ants").iterdir())[1:]:
        path.unlink()
    opened(alone, val_split=0.2)
    assert (
        "(val_split needs at least 2 images of a class, and 'ants' has 1); means over classes use the other 1\n"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("given", "words"), [
    ({}, "it contains ants/, bees/; use --val_split 0.2"),
    ({"val_split": 0.01}, "val_split=0.01: no validation image among the 30 images"),
    ({"val_split": 0.6}, "val_split=0.6: must be in [0, 0.5]"),
])  # fmt: skip
def test_an_impossible_val_split_is_an_error(alone, given, words):
    assert words in refused(alone, **given)


def test_val_split_of_a_split_folder_is_an_error(split_set):
    assert "is already split, it has folders for training and validation; remove --val_split" in refused(
        split_set, val_split=0.2
    )
    with pytest.raises(UserError, match="data=digits is already split"):
        resolve(data="digits", val_split=0.2)


# ------------------------------------------------------------ lists


def rows_of(root, split=True):
    parts = [(part, p) for part in ("train", "val") for p in sorted((root / part).glob("*/*"))]
    return [[str(p.relative_to(root)), p.parent.name, *([part] if split else [])] for part, p in parts]


def test_a_list_of_a_folder_equals_that_folder(split_set, tmp_path):
    """The same images, labels and order, so the same key; the file may have any name, with or without a
    header.
    """
    folder, key = opened(split_set), run_on(split_set).key()
    for name, header in (
        ("all.csv", ("path", "label", "split")),
        ("B.CSV", ("Path", "LABEL", "Split")),
        ("c.csv", None),
    ):
        path = listing(split_set / name, rows_of(split_set)[::-1], header)
        data = opened(path)
        assert (names(data.train), names(data.val), data.classes) == (
            names(folder.train),
            names(folder.val),
            folder.classes,
        )
        assert data.train.labels == folder.train.labels
        assert run_on(path).key() == key
        path.unlink()


def test_a_folder_with_one_list_is_that_list(alone):
    path = listing(alone.parent / "labels.csv", [[str(p.relative_to(alone.parent)), p.parent.name] for p in alone.glob("*/*")],
                   ("path", "label"))  # fmt: skip
    shutil.rmtree(alone.parent / "made")
    data = opened(alone.parent, val_split=0.2)
    assert (len(data.train), len(data.val)) == (24, 6)
    assert fingerprint(alone.parent) == fingerprint(path) == fingerprint(alone)
    assert "has no column split; use --val_split 0.2" in refused(alone.parent)
    listing(alone.parent / "more.csv", [], None)
    assert "it has 2 CSV files: name one, --data_dir" in refused(alone.parent)


def test_names_are_found_in_any_case_and_labels_are_any_text(alone):
    paths = sorted(alone.glob("*/*"))
    rows = [
        [f"alone/{p.parent.name}/{p.stem}.PNG", f"{i % 3}", "Train" if i % 5 else "Validation"]
        for i, p in enumerate(paths)
    ]
    data = opened(listing(alone.parent / "l.csv", rows))
    assert (data.classes, len(data.train), len(data.val)) == (["0", "1", "2"], 24, 6)


def test_semicolons_and_a_byte_order_mark_are_read(alone):
    rows = [f"alone/{p.parent.name}/{p.name};{p.parent.name}" for p in alone.glob("*/*")]
    path = alone.parent / "excel.csv"
    path.write_text("\n".join(["path;label", *rows]), encoding="utf-8-sig")
    assert len(opened(path, val_split=0.2).train) == 24


def test_a_list_names_its_validation_part(split_set, capsys):
    rows = rows_of(split_set)
    extra = [
        [path, label, "test" if split == "val" and label == "ants" else split] for path, label, split in rows
    ]
    assert len(opened(listing(split_set / "l.csv", extra)).val) == 4
    assert "val is used for validation, test is not used" in capsys.readouterr().err


@pytest.mark.parametrize(("rows", "words"), [
    ([["id", "kind"], ["1", "ants"]], "the first line must be path,label or path,label,split; it is id,kind"),
    ([["path", "label"], ["none.png", "ants"]], "line 2: "),
    ([["path", "label"], ["ants/0.png", ""]], "line 2: no label for ants/0.png"),
    ([["path", "label"], ["ants/0.png", "a"], ["ants/0.png", "b"]], "line 3: ants/0.png is also in line 2"),
    ([["path", "label"], ["ants/0.txt", "a"]], "not an image by its name"),
    ([["path", "label"], ["ants/0.png"]], "line 2: has 1 columns"),
    ([["path", "label", "split"], ["ants/0.png", "a", "dev"]], "split 'dev' must be train or one of val"),
    ([["path", "label", "split"], ["ants/0.png", "a", "train"]], "must have train and one of val, valid, validation, test; it has train"),
    ([["path", "label"]], "lists no images"),
])  # fmt: skip
def test_a_broken_list_is_an_error_naming_the_line(alone, rows, words):
    path = listing(alone / "l.csv", rows, None)
    said = refused(path, val_split=0.2)
    assert said.startswith(str(path))
    assert words in said


def test_another_file_is_not_a_list(alone):
    assert "must be a folder, or a .csv file that lists images" in refused(alone / "ants" / "0.png")


# ------------------------------------------------------------ from the command line


@pytest.mark.slow
def test_a_folder_of_classes_trains_and_evaluates(alone, split_set, tmp_path):
    args = flags(data_dir=alone, val_split=0.2, resolution=32, width=0.1, epochs=1, batch=4, lr=0.01)
    call("hbo.fit", *args, "--threads", 1, "--workers", 0, "--out", tmp_path / "runs")
    row, folder = only_row(tmp_path / "runs")
    assert (row["data"], row["train_images"], row["val_images"], row["val_split"]) == (
        "imagefolder",
        24,
        6,
        0.2,
    )
    ask = lambda *more: json.loads(call("hbo.evaluate", folder, *more, "--json")[0])
    assert ask()["top1"] == row["top1"]
    moved = alone.rename(tmp_path / "moved")
    assert ask("--data_dir", moved)["top1"] == row["top1"]
    assert ask("--data_dir", split_set)["images"] == 7  # this folder has its own split
    out, _ = call("hbo.data.check", moved, "--data", "imagefolder")
    assert out.startswith("30 images")


@pytest.mark.parametrize("lines", ['{},a\n{},"b\n{},a\n{},b\n', '{},a,"note\n{},b,\n{},a,\n{},b,\n'])
@pytest.mark.parametrize("more", [0, 200_000])
def test_an_unclosed_quote_swallows_no_lines(tmp_path, lines, more):
    root = make_folder(tmp_path / "set", {"a": 4}, {})
    names = [f"train/a/{i}.png" for i in range(4)]
    head = "path,label,note\n" if "note" in lines else "path,label\n"
    (root / "l.csv").write_text(head + lines.format(*names) + "x" * more)
    number = 2 if "note" in lines else 3
    with pytest.raises(DataError, match=rf"l\.csv, line {number}: a quote must be closed"):
        listed.read(root / "l.csv")


def test_outcomes_name_images_relative_to_the_sets_folder(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "set", {"a": 4, "b": 4}, {"a": 1, "b": 1})
    with open(root / "l.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "split"]]
            + [[p.relative_to(root), p.parent.name, p.parts[-3]] for p in sorted(root.glob("*/*/*.png"))]
        )
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for name in (root, "../set", "../inner/../set/l.csv"):
        data = open_data(resolve(data="imagefolder", data_dir=str(name), batch=2, resolution=32))
        assert names_of(data.val, str(name)) == ["val/a/0.png", "val/b/0.png"]
    assert names_of(data.val, "elsewhere") == names_of(data.val, None) == ["0.png", "0.png"]
