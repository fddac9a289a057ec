"""Re-identification sets other than Market-1501: DukeMTMC, VeRi-776, MSMT17 with its lists, own folders."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import call, make_market

from hbo.config import resolve
from hbo.errors import DataError
from hbo.tasks.build import open_data
from hbo.tasks.reid import names

MARKET = ("bounding_box_train", "query", "bounding_box_test")
VERI = ("image_train", "image_query", "image_test")


def opened(root: Path, reported: bool = False, **given):
    given = {"data": "marketfolder", "data_dir": str(root), "resolution": 64, "batch": 4, **given}
    return open_data(resolve(**given), reported)


def key(root: Path) -> str:
    return resolve(data="marketfolder", data_dir=str(root)).key()


def shown(data) -> list[tuple[str, int, int, int]]:
    """The labels of each image to retrieve, with its last bytes in place of its name."""
    return sorted(
        (Path(p).read_bytes().hex()[-400:], *label)
        for p, label in zip(data.val.paths, data.val.labels, strict=True)
    )


def renamed(tmp_path: Path, rule, folders=MARKET, name: str = "other") -> Path:
    """Market's folder with other file and folder names: rule(identity, camera, image number)."""
    source, root = make_market(tmp_path / "market"), tmp_path / name
    for before, after in zip(MARKET, folders, strict=True):
        (root / after).mkdir(parents=True, exist_ok=True)
        for i, path in enumerate(sorted((source / before).iterdir())):
            who, camera = path.stem.split("_")[:2]
            if who not in ("0000", "-1"):
                shutil.copy(path, root / after / rule(who, int(camera[1]), i))
    return root


FORMS = {
    "DukeMTMC": (lambda who, c, i: f"{who}_c{c}_f{i:07d}.jpg", MARKET),
    "VeRi-776": (lambda who, c, i: f"{who}_c{c:03d}_{i:08d}_0.jpg", VERI),
    "capitals": (lambda who, c, i: f"{who}_C{c}_{i}.JPG", ("train", "query", "gallery")),
    "a sequence and no more": (lambda who, c, i: f"{who}_c{c}s{i}.jpeg", MARKET),
    "three digits": (lambda who, c, i: f"{int(who):03d}_c{c}s1_{i:06d}_01.jpg", MARKET),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_set_by_another_name_is_the_same_set(form, tmp_path):
    rule, folders = FORMS[form]
    root = renamed(tmp_path, rule, folders)
    data, market = opened(root), opened(tmp_path / "market")
    assert data.classes == market.classes == [f"{i:04d}" for i in range(1, 7)]
    assert Counter(data.train.labels) == Counter(market.train.labels)
    assert shown(data) == [one for one in shown(market) if one[1] > 0]
    assert data.facts["distractor_images"] == data.facts["junk_images"] == data.facts["left_out_images"] == 0
    assert key(root) != key(tmp_path / "market")
    assert f"{8 + 16 + 36} images" in call("hbo.data.check", root, "--data", "marketfolder")[0]


def test_folders_of_another_set_change_no_fingerprint(tmp_path):
    rule = FORMS["DukeMTMC"][0]
    assert key(renamed(tmp_path, rule, VERI, "a")) == key(renamed(tmp_path, rule, MARKET, "b"))


@pytest.mark.parametrize(("stem", "found"), [
    ("0001_c2_f0046182", ("0001", 2, "identity")),
    ("0002_c002_00030600_0", ("0002", 2, "identity")),
    ("0776_c020_00083610_1", ("0776", 20, "identity")),
    ("0002_c1s1_000451_03", ("0002", 1, "identity")),
    ("0000_c1s1_000451_03", ("0000", 1, "distractor")),
    ("0000_C1S1_000451_03", ("0000", 1, "distractor")),
    ("0000_c1_f0046182", ("0000", 1, "identity")),
    ("0000_c001_00030600_0", ("0000", 1, "identity")),
    ("-1_c3s1_000451_03", ("-1", 3, "junk")),
    ("-1_c3_f000451", ("-1", 3, "junk")),
    ("7_c12", ("0007", 12, "identity")),
    ("shoe-3_C0_left", ("shoe-3", 0, "identity")),
    ("0007_2019_c3_1", None),  # 0007, or 0007_2019?
    ("0007", None), ("0007_c", None), ("0007_c1x_2", None), ("_c1_2", None), ("-2_c1s1_000451_03", None),
    ("0000_000_01_0303morning_0015_0", None),
])  # fmt: skip
def test_what_a_name_says(stem, found):
    assert names.by_name(stem) == found


def test_zero_is_an_identity_where_no_set_says_otherwise(tmp_path):
    """Identities from 0000, in training and, in another folder, in retrieval: none is treated as the metric's
    distractor 0.
    """
    less = lambda who: f"{int(who) - 1:04d}"
    data = opened(renamed(tmp_path, lambda who, c, i: f"{less(who)}_c{c}_{i}.jpg"))
    assert data.classes == [f"{i:04d}" for i in range(6)]
    assert len(data.train) == 36
    assert data.facts["left_out_images"] == 0
    swapped = {"0007": "0000"}
    data = opened(renamed(tmp_path, lambda who, c, i: f"{swapped.get(who, who)}_c{c}_{i}.jpg", name="third"))
    assert data.facts["unmatched_queries"] == data.facts["distractor_images"] == 0
    assert Counter(who for who, *_ in data.val.labels) == Counter([11] * 6 + [8] * 6 + [9] * 6 + [10] * 6)


def test_words_are_identities(tmp_path):
    root = renamed(tmp_path, lambda who, c, i: f"{'abcdefghij'[int(who) - 1]}hoe_c{c}_{i}.png")
    data = opened(root)
    assert data.classes == [f"{letter}hoe" for letter in "abcdef"]
    assert {who for who, *_ in data.val.labels} == {1, 2, 3, 4}
    (root / "query" / "ahoe_c1_99.png").write_bytes(next((root / "query").iterdir()).read_bytes())
    with pytest.raises(DataError, match=r"identity ahoe \(1 such identities\) is in bounding_box_train"):
        opened(root)


# ------------------------------------------------------------ MSMT17


def msmt17(tmp_path: Path, folders=("train", "test")) -> Path:
    """Market's images in MSMT17's layout: 6 training identities, from 0, and 4 others to retrieve, also from
    0.
    """
    source, root = make_market(tmp_path / "market"), tmp_path / "MSMT17"
    lines: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for folder, part in zip(MARKET, ("train", "query", "gallery"), strict=True):
        for i, path in enumerate(sorted((source / folder).iterdir())):
            who, camera = int(path.stem.split("_")[0]), int(path.stem.split("_")[1][1])
            if who < 1:
                continue
            label = who - (1 if part == "train" else 7)
            name = f"{label:04d}/{label:04d}_{i:03d}_{camera:02d}_0303morning_0015_{int(part == 'query')}.jpg"
            where = root / folders[part != "train"] / name
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, where)
            lines["val" if part == "train" and i % 6 == 5 else part].append(f"{name} {label}")
    for part, found in lines.items():
        (root / f"list_{part}.txt").write_text("\r\n".join(found) + "\n\n")
    return root


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_is_what_its_lists_say(folders, tmp_path):
    root = msmt17(tmp_path, folders)
    data, market = opened(root), opened(tmp_path / "market")
    assert data.classes == [f"{i:04d}" for i in range(6)]
    # The images of list_val.txt are trained on too.
    assert Counter(data.train.labels) == dict.fromkeys(range(6), 6)
    assert (data.facts["query_images"], data.facts["gallery_images"], data.facts["unmatched_queries"]) == (
        8,
        16,
        0,
    )
    number = {7: 4, 8: 1, 9: 2, 10: 3}  # identity 0 is not a distractor
    assert shown(data) == sorted((i, number[who], *rest) for i, who, *rest in shown(market) if who > 0)
    assert data.facts["images_left_out"] == 0
    assert f"{36 + 24} images" in call("hbo.data.check", root, "--data", "marketfolder")[0]
    (root / "list_val.txt").unlink()
    assert len(opened(root).train) == 30
    assert opened(root).facts["left_out"] == [f"{folders[0]}/: 6"]


def test_a_list_is_part_of_the_fingerprint(tmp_path):
    root = msmt17(tmp_path)
    before, path = key(root), root / "list_train.txt"
    lines = path.read_text().splitlines()
    name, label = lines[0].split()
    path.write_text("\n".join([f"{name} {int(label) + 1}", *lines[1:]]))
    assert key(root) != before
    path.write_text("\n".join(lines))
    assert key(root) == before


@pytest.mark.parametrize(("line", "word"), [
    ("0000/0000_000_01_0303morning_0015_0.jpg", r"list_query.txt, line 1: .* is not PATH NUMBER"),
    ("0000/0000_000_01_0303morning_0015_0.jpg zero", "is not PATH NUMBER"),
    ("0000/nobody.jpg 0", "where 01 is the camera"),
    ("0000/0000_099_01_0303morning_0015_0.jpg 0", r"but missing \(1 of 9 images are\)"),
    (None, "listed more than once in"),
])  # fmt: skip
def test_a_list_that_is_wrong_is_refused(line, word, tmp_path):
    root = msmt17(tmp_path)
    path = root / "list_query.txt"
    path.write_text(f"{line or path.read_text().splitlines()[0]}\n{path.read_text()}")
    with pytest.raises(DataError, match=word):
        opened(root)
    path.write_text("\n")
    with pytest.raises(DataError, match=r"list_query.txt: an empty list"):
        opened(root)


# ------------------------------------------------------------ errors


@pytest.mark.parametrize(("there", "word"), [
    (["photos", "notes"], r"bounding_box_train: no such folder; .* must contain bounding_box_train/ and query/ and bounding_box_test/ "
                          r"\(for other layouts see docs/detect-and-retrieve.md\); it contains notes/, photos/$"),
    (["image_train", "image_query"], r"image_test: no such folder; .* must contain image_train/ and image_query/ and image_test/; it contains image_query/, image_train/"),
    (["train", "test"], r"list_train.txt: no such file; .* must contain train/ and test/ with list_train.txt, list_val.txt, .*; it contains test/, train/"),
    (["train", "query"], r"gallery: no such folder; .* must contain train/ and query/ and gallery/; it contains query/, train/"),
    ([], r"it contains nothing"),
])  # fmt: skip
def test_a_folder_without_the_parts_is_told_what_is_there(there, word, tmp_path):
    for name in there:
        (tmp_path / "set" / name).mkdir(parents=True)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=word):
        opened(tmp_path / "set")


def test_queries_and_gallery_are_enough_to_evaluate(tmp_path):
    for form, (rule, folders) in FORMS.items():
        root = renamed(tmp_path, rule, folders, form)
        whole = opened(root, reported=True)
        shutil.rmtree(root / folders[0])
        data = opened(root, reported=True)
        assert (data.train, data.val.labels) == (None, whole.val.labels)
        assert json.dumps(data.facts)
    root = msmt17(tmp_path)
    shutil.rmtree(root / "train")
    (root / "list_train.txt").unlink()
    assert len(opened(root, reported=True).val) == 24
