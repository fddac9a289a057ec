"""Boxes in VOC's layout: a test for each kind of fault."""

import numpy as np
import pytest
import torch
from conftest import annotate, make_voc
from PIL import Image

from hbo.config import resolve
from hbo.errors import DataError
from hbo.tasks.build import open_data
from hbo.tasks.detect.data import CLASSES, read

SIZE = 100, 80  # width and height


@pytest.fixture
def folder(tmp_path):
    """Six training photographs, each with one cell; two validation photographs."""
    return plain(tmp_path / "set", ["a", "b", "a", "b", "a", "b"], ["a", "b"])


def plain(root, train: list[str], test: list[str], first: int = 0):
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for split, labels in (("trainval", train), ("test", test)):
        if not labels:
            continue
        names = [f"{first + i:04d}" for i in range(len(labels))]
        first += len(labels)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name, label in zip(names, labels, strict=True):
            pixels = np.random.RandomState(int(name)).randint(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
            annotate(root / "Annotations" / f"{name}.xml", [(label, 11, 21, 50, 60)], SIZE)
    return root


def opened(root, **kwargs):
    given = {"data": "vocfolder", "batch": 2, "resolution": 64, "ssd_augment": False, "flip": "none"} | kwargs
    return open_data(resolve(data_dir=str(root), **given))


def write(root, name: str, *boxes: tuple) -> None:
    annotate(root / "Annotations" / f"{name}.xml", list(boxes), SIZE)


# ------------------------------------------------------------ boxes


def test_boxes_count_pixels_from_one_and_include_the_last(folder):
    """(11, 21) to (50, 60) is 40 x 40 pixels; the whole photograph is resized to 64 x 64."""
    data = opened(folder)
    image, target, index = data.val[(0, 0)]
    assert (image.dtype, tuple(image.shape), index) == (torch.uint8, (3, 64, 64), 0)
    expected = torch.tensor([[10 * 64 / 100, 20 * 64 / 80, 50 * 64 / 100, 60 * 64 / 80]])
    torch.testing.assert_close(target["boxes"], expected)
    assert data.classes == ["a", "b"]
    assert [int(data.val[(0, i)][1]["labels"]) for i in range(2)] == [0, 1]
    assert (len(data.train), len(data.val)) == (6, 2)
    assert {k: data.facts[k] for k in ("train_boxes", "val_boxes", "clipped_boxes", "left_out_boxes")} == {
        "train_boxes": 6, "val_boxes": 2, "clipped_boxes": 0, "left_out_boxes": 0,
    }  # fmt: skip


def test_a_box_outside_the_photograph_is_clipped_counted_and_named(folder):
    write(folder, "0001", ("b", 0, 21, 50, 60), ("b", 60, 50, 101, 999))
    data = opened(folder)
    assert data.facts["clipped_boxes"] == 2
    assert data.facts["left_out_boxes"] == 0
    assert data.facts["faults"][0] == "0001: b (0, 21, 50, 60) reaches outside 100 x 80: clipped"
    scale = torch.tensor([0.64, 0.8, 0.64, 0.8])
    torch.testing.assert_close(
        data.train.targets[1]["boxes"], torch.tensor([[0.0, 20, 50, 60], [59, 49, 100, 80]])
    )
    torch.testing.assert_close(
        data.train[(0, 1)][1]["boxes"], torch.tensor([[0.0, 20, 50, 60], [59, 49, 100, 80]]) * scale
    )


def test_a_box_of_the_whole_photograph_is_valid(folder):
    write(folder, "0001", ("b", 1, 1, *SIZE))
    data = opened(folder)
    assert data.facts["faults"] == []
    assert data.train.targets[1]["boxes"].tolist() == [[0, 0, *SIZE]]


@pytest.mark.parametrize(
    "box",
    [
        (50, 40, 50, 40),
        (50, 40, 50, 60),
        (50, 40, 60, 30),
        (120, 10, 140, 30),
        (10, 90, 30, 95),
        (-9, 5, 0, 9),
    ],
)
@pytest.mark.parametrize("name", ["0001", "0007"])
def test_a_box_without_area_is_dropped_counted_and_named_in_both_parts(folder, name, box):
    write(folder, name, ("b", *box), ("b", 11, 21, 50, 60))
    data = opened(folder)
    assert (data.facts["left_out_boxes"], data.facts["clipped_boxes"]) == (1, 0)
    (fault,) = data.facts["faults"]
    assert fault.startswith(f"{name}: b ({', '.join(f'{c:g}' for c in box)}) has no area in 100 x 80")
    part, place = (data.train, 1) if name == "0001" else (data.val, 1)
    assert part.targets[place]["boxes"].tolist() == [[10, 20, 50, 60]]


@pytest.mark.parametrize(("size", "word"), [
    ((200, 160), "annotated at 200 x 160, but 0001.jpg is 100 x 80"),
    ((80, 100), "it is transposed"),
    ((100, 81), "annotated at 100 x 81"),
    ((0, 160), "annotated at 0 x 160"),
    ((-100, 80), "annotated at -100 x 80"),
    (("wide", 80), "a <size> of wide x 80, not two numbers"),
    (("nan", 80), "not two numbers"),
])  # fmt: skip
def test_an_annotation_at_another_size_is_an_error(folder, size, word):
    annotate(folder / "Annotations" / "0001.xml", [("b", 11, 21, 50, 60)], size)
    with pytest.raises(DataError) as error:
        opened(folder)
    assert "0001.xml" in str(error.value)
    assert word in str(error.value)


def test_in_the_published_set_another_size_is_counted_and_named(tmp_path, capsys):
    """Its annotations will not be corrected."""
    root = plain(tmp_path / "VOCdevkit" / "VOC2007", ["cat", "dog"], ["person"])
    plain(tmp_path / "VOCdevkit" / "VOC2012", ["sofa"], [], first=100)
    for name, size in (("0001", (80, 100)), ("0002", ("wide", 80))):
        annotate(root / "Annotations" / f"{name}.xml", [("dog", 11, 21, 50, 60)], size)
    data = opened(tmp_path, data="voc")
    assert data.facts["other_sizes"] == 2
    assert [
        name in fault for name, fault in zip(("0001.xml", "0002.xml"), data.facts["faults"], strict=True)
    ] == [True, True]
    assert data.train.targets[1]["boxes"].tolist() == [[10, 20, 50, 60]]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "another size" in line]
    assert line.startswith("warning: 2 annotations have another size than their image (")


@pytest.mark.parametrize("size", [(0, 0), (100, 0), ("100.0", " 80 "), ("", "")])
def test_a_missing_size_or_the_images_own_is_accepted(folder, size):
    annotate(folder / "Annotations" / "0001.xml", [("b", 11, 21, 50, 60)], size)
    assert opened(folder).facts["faults"] == []
    path = folder / "Annotations" / "0001.xml"
    text = path.read_text()
    path.write_text(text[: text.index("<size>")] + text[text.index("</size>") + len("</size>") :])
    assert opened(folder).facts["faults"] == []


def test_the_size_is_that_of_the_rotated_photograph(folder):
    path = folder / "JPEGImages" / "0001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)
    with pytest.raises(
        DataError, match=r"100 x 80, but 0001\.jpg is 80 x 100 after its EXIF rotation; it is transposed"
    ):
        opened(folder)
    annotate(folder / "Annotations" / "0001.xml", [("b", 11, 21, 50, 60)], (80, 100))
    assert opened(folder).facts["faults"] == []


def test_all_faults_are_counted_and_the_first_twenty_named(folder):
    write(folder, "0001", *[("b", 5, 5, 5, 5 + i) for i in range(25)])
    data = opened(folder)
    assert (data.facts["left_out_boxes"], len(data.facts["faults"])) == (25, 20)
    assert len(data.train.targets[1]["boxes"]) == 0
    assert data.train[(0, 1)][1]["boxes"].shape == (0, 4)  # a photograph without objects stays


def test_difficult_objects_are_not_trained_on_and_marked_in_evaluation(folder):
    for name in ("0001", "0007"):
        write(folder, name, ("b", 11, 21, 50, 60, True), ("a", 30, 30, 90, 70))
    data = opened(folder)
    assert data.facts["difficult_boxes"] == 2
    assert (data.facts["train_boxes"], data.facts["val_boxes"]) == (6, 3)
    assert data.train.targets[1]["labels"].tolist() == [0]
    assert data.val[(0, 1)][1]["difficult"].tolist() == [True, False]
    assert data.val[(0, 1)][1]["labels"].tolist() == [1, 0]


# ------------------------------------------------------------ errors, by name


def _remove(path):
    path.unlink()


def edit(folder, name, old, new):
    path = folder / "Annotations" / f"{name}.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda f: _remove(f / "JPEGImages" / "0001.jpg"), "0001.jpg: no such image"),
    (lambda f: _remove(f / "Annotations" / "0007.xml"), "0007.xml: no such annotation"),
    (lambda f: _remove(f / "ImageSets" / "Main" / "test.txt"), "test.txt: missing"),
    (lambda f: (f / "ImageSets" / "Main" / "test.txt").write_text("\n"), "test.txt: an empty list"),
    (lambda f: (f / "ImageSets" / "Main" / "test.txt").write_text("0007\n0007\n"), "lists 0007 more than once"),
    (lambda f: (f / "ImageSets" / "Main" / "test.txt").write_text("0006\n0001\n"), "both contain 0001"),
    (lambda f: (f / "Annotations" / "0001.xml").write_text("<annotation><object>"), "0001.xml: not valid XML"),
    (lambda f: (f / "JPEGImages" / "0001.jpg").write_bytes(b"no image"), "0001.jpg"),
    (lambda f: write(f, "0007", ("c", 11, 21, 50, 60)), "0007.jpg: annotated with 'c', which is not a class of trainval.txt: a, b"),
    (lambda f: write(f, "0001", ("b", "left", 21, 50, 60)), "0001.xml: a box of b with corners"),
    (lambda f: write(f, "0001", ("b", "nan", 21, 50, 60)), "0001.xml: a box of b with corners ['nan', '21', '50', '60']"),
    (lambda f: write(f, "0001", ("", 11, 21, 50, 60)), "0001.xml: an object has no name"),
    (lambda f: edit(f, "0007", "<difficult>0", "<difficult>false"), "0007.xml: a b has difficult='false'; must be 0 or 1"),
    (lambda f: edit(f, "0001", "<annotation>", '<?xml version="1.0" encoding="GBK"?><annotation>'), "0001.xml: not valid XML"),
    (lambda f: edit(f, "0001", "<annotation>", '<?xml version="1.0" encoding="foo"?><annotation>'), "0001.xml: not valid XML"),
    (lambda f: (f / "JPEGImages" / "0001.png").write_bytes((f / "JPEGImages" / "0001.jpg").read_bytes()), "the folder has 0001.jpg too"),
    (lambda f: (f / "ImageSets" / "Main" / "test.txt").write_bytes(b"caf\xe9\n"), "test.txt: a list must be text in UTF-8"),
    (lambda f: [write(f, f"000{i}") for i in range(8)], "no boxes in the images"),
])  # fmt: skip
def test_impossible_annotations_are_errors_naming_the_file(folder, spoil, words):
    spoil(folder)
    with pytest.raises(DataError) as refused:
        opened(folder)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_corner_is_an_error(folder):
    path = folder / "Annotations" / "0001.xml"
    path.write_text(path.read_text().replace("<xmin>11</xmin>", ""))
    with pytest.raises(DataError, match=r"0001\.xml: a box of b with corners"):
        opened(folder)


def test_other_files_and_a_byte_order_mark_are_ignored(folder):
    for suffix in (".jpg", ".png"):  # on no list
        (folder / "JPEGImages" / f"other{suffix}").write_bytes(b"")
    listing = folder / "ImageSets" / "Main" / "test.txt"
    listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes())
    assert len(opened(folder).val) == 2


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="none"):
        opened(tmp_path / "none")


# ------------------------------------------------------------ VOC itself


def test_voc_trains_on_both_years_and_reports_2007(tmp_path):
    plain(tmp_path / "VOCdevkit" / "VOC2007", ["cat", "dog"], ["person", "tvmonitor", "cat"])
    plain(tmp_path / "VOCdevkit" / "VOC2012", ["aeroplane", "sofa", "cow"], [], first=100)
    for root in (tmp_path, tmp_path / "VOCdevkit"):  # the devkit, or its parent folder
        data = opened(root, data="voc")
        assert data.classes == CLASSES
        assert len(CLASSES) == 20
        names = lambda part: [CLASSES[int(t["labels"])] for t in part.targets]
        assert names(data.train) == ["cat", "dog", "aeroplane", "sofa", "cow"]
        assert names(data.val) == ["person", "tvmonitor", "cat"]
    write(tmp_path / "VOCdevkit" / "VOC2012", "0101", ("unicorn", 11, 21, 50, 60))
    with pytest.raises(DataError, match="'unicorn', which is not a class of VOC"):
        opened(tmp_path, data="voc")


def test_held_out_images_are_the_same_for_every_seed_and_from_trainval(tmp_path):
    root = make_voc(tmp_path / "set", train=20, test=3)
    data = [opened(root, holdout=0.25, seed=seed) for seed in (0, 1)]
    trainval = {image.path for image in read(root, "trainval")}
    for one in data:
        assert len(one.val) == 5
        assert set(one.train.paths) | set(one.val.paths) == trainval
        assert one.val.paths == data[0].val.paths


def test_the_key_depends_on_the_contents_of_the_folder(folder):
    def key() -> str:
        return resolve(data="vocfolder", data_dir=str(folder)).key()

    keys = [key()]
    assert key() == keys[0]
    write(folder, "0001", ("a", 11, 21, 50, 60))
    keys.append(key())
    (folder / "ImageSets" / "Main" / "test.txt").write_text("0006\n")
    keys.append(key())
    assert len(set(keys)) == 3
    moved = folder.rename(folder.parent / "elsewhere")
    assert resolve(data="vocfolder", data_dir=str(moved)).key() == keys[-1]
