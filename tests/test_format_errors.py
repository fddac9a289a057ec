"""Ambiguous or incomplete folders of boxes: errors and warnings that say what was found."""

import json
import shutil
from pathlib import Path

import pytest
from test_formats import (  # noqa: F401
    coco,
    coco_beside,
    opened,
    targets,
    voc_beside,
    voc_fixture,
    yolo,
    yolo_by_part,
    yolo_lists,
)

from hbo.config import resolve
from hbo.errors import DataError, UserError
from hbo.tasks.detect import formats


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_crowd_is_as_a_difficult_object(voc, tmp_path):
    coco_beside(voc, tmp_path / "set")
    for folder in ("train", "valid"):
        edit_json(
            tmp_path / "set" / folder / "_annotations.coco.json",
            lambda c: c["annotations"][0].update(iscrowd=1),
        )
    data = opened(tmp_path / "set")
    assert data.facts["difficult_boxes"] == 2
    assert int(data.val.targets[0]["difficult"].sum()) == 1


def test_an_image_without_labels_is_one_without_objects_and_a_polygon_has_a_box(voc, tmp_path):
    root = tmp_path / "set"
    yolo(voc, root)
    (first, second, *_) = sorted((root / "labels" / "train").iterdir())
    first.unlink()
    second.write_text("1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    found = targets(opened(root).train)
    assert found[first.stem][0].shape == (0, 4)
    assert found[second.stem][0].tolist() == [[24, 20, 72, 60]]
    assert found[second.stem][1].tolist() == [0]  # data.yaml's second class, a


def test_a_class_that_is_reported_alone_is_named(voc, tmp_path, capsys):
    yolo(voc, tmp_path / "set")
    for path in (tmp_path / "set" / "labels" / "train").iterdir():
        path.write_text(
            "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("1"))
        )
    assert opened(tmp_path / "set").classes == ["a", "b"]
    assert "'b': in the validation images" in capsys.readouterr().err


def test_of_three_parts_test_is_not_used_and_said_so(voc, tmp_path, capsys):
    root = tmp_path / "set"
    coco_beside(voc, root)
    shutil.copytree(root / "valid", root / "test")
    data = opened(root)
    assert len(data.val) == 4
    assert data.facts["images_left_out"] == 4
    assert "4 images are not used (test/: 4)" in capsys.readouterr().err


def _json(root: Path) -> Path:
    return root / "train" / "_annotations.coco.json"


def _label(root: Path) -> Path:
    return next(iter(sorted((root / "labels" / "train").iterdir())))


@pytest.mark.parametrize(("layout", "spoil", "words"), [
    (coco_beside, lambda r: _json(r).write_text("{"), "_annotations.coco.json: not valid JSON"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["annotations"][0].update(category_id=9)), "category_id 9 is not among its categories"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["annotations"][0].update(image_id=9)), "an annotation has image_id 9"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["annotations"][0].update(bbox=[1, 2, 3])), "must be [x, y, width, height]"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["annotations"][0].update(bbox=[1, 2, 3, "x"])), "not four numbers"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["images"][0].update(width=80, height=96)), "annotated at 80 x 96, but is 96 x 80"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["images"][0].pop("file_name")), "has no 'file_name'"),
    (coco_beside, lambda r: edit_json(_json(r), lambda c: c["images"].append(c["images"][0])), "two images have the same id"),
    (coco_beside, lambda r: (r / "train" / "000000.jpg").unlink(), "000000.jpg: no such image, which"),
    (coco_beside, lambda r: [p.unlink() for p in (r / "train").glob("*.jpg")], "none of its images, such as 000000.jpg, is in train/"),
    (coco_beside, lambda r: shutil.copy(_json(r), r / "train" / "more.json"), "are COCO's JSON of the same or an unknown part"),
    (coco_beside, lambda r: shutil.rmtree(r / "train"), "with val (4 images); a split data set needs train, and val or test"),
    (coco_beside, lambda r: [(r / "data.yaml").write_text("names: [a]"), (r / "train" / "000000.txt").write_text("")], "COCO's JSON and YOLO's labels; keep one"),
    (yolo, lambda r: _label(r).write_text("5 0.5 0.5 0.1 0.1"), "line 1: class 5 is not among data.yaml's 0, 1"),
    (yolo, lambda r: _label(r).write_text("0 0.5 0.5 0.1"), "line 1: 4 numbers"),
    (yolo, lambda r: _label(r).write_text("0 0.5 0.5 0.1 wide"), "not 5 numbers"),
    (yolo, lambda r: _label(r).write_text("0 48 40 10 10"), "48; numbers must be relative to the image's sides"),
    (yolo, lambda r: shutil.rmtree(r / "labels"), "no image has a label file"),
    (yolo, lambda r: shutil.rmtree(r / "images" / "val"), "data.yaml: images/val does not exist; tried"),
    (yolo, lambda r: (r / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [b, a]\n"), "both contain 000000.jpg"),
    (yolo, lambda r: (r / "data.yaml").unlink(), "no known annotations: must contain COCO's JSON, YOLO's data.yaml, or VOC's XML; it contains images/, labels/"),
    (voc_beside, lambda r: (r / "train" / "000000.jpg").unlink(), "000000.xml: no image with this name"),
    (voc_beside, lambda r: shutil.copy(r / "train" / "000000.xml", r), "no image with this name"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_says_what_was_found(voc, tmp_path, layout, spoil, words):
    root = tmp_path / "set"
    layout(voc, root)
    spoil(root)
    with pytest.raises(DataError) as refused:
        opened(root)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_vocfolder_names_the_set_that_reads_another_format(voc, tmp_path):
    yolo(voc, tmp_path / "set")
    with pytest.raises(DataError, match="no VOC annotations, but YOLO's; use --data detectfolder"):
        opened(tmp_path / "set", "vocfolder")


@pytest.mark.parametrize("train", ["train.txt", "[images/train, images/train]"])
def test_an_image_that_yolo_names_twice_is_refused(voc, tmp_path, train):
    """So are COCO's JSON and VOC's lists: the image would be seen twice per epoch."""
    yolo_lists(voc, tmp_path)
    names = (tmp_path / "train.txt").read_text()
    (tmp_path / "train.txt").write_text(names + names.splitlines()[0] + "\n")
    (tmp_path / "data.yaml").write_text(f"train: {train}\nval: val.txt\nnames: [b, a]\n")
    with pytest.raises(DataError, match=r"data\.yaml: .* names .*\.jpg more than once"):
        formats.opened(tmp_path)


@pytest.mark.parametrize(
    "layout", [coco_beside, yolo, yolo_by_part, voc_beside], ids=lambda layout: layout.__name__
)
def test_boxes_without_a_task_are_not_taken_for_folders_of_classes(voc, tmp_path, layout):
    """`train/images` and `train/labels` look like two classes."""
    layout(voc, tmp_path / "set")
    with pytest.raises(UserError, match=r"boxes; add --task detect|use --data detectfolder"):
        resolve(data_dir=str(tmp_path / "set"))
    assert resolve(data_dir=str(tmp_path / "set"), task="detect").data == "detectfolder"
