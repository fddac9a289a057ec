"""Boxes in common formats: the same boxes give the same targets in each; errors say what was found."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from conftest import call, make_voc
from PIL import Image

from hbo.config import resolve
from hbo.errors import DataError, UserError
from hbo.metrics import VOCMeanAveragePrecision
from hbo.tasks import counts
from hbo.tasks.build import open_data

PARTS = {"trainval": "train", "test": "val"}


def things(root: Path, stem: str) -> list[tuple[str, int, int, int, int]]:
    """(class, x, y, width, height), counted from 0, of a VOC annotation."""
    found = []
    for one in ElementTree.parse(root / "Annotations" / f"{stem}.xml").iterfind("object"):
        x1, y1, x2, y2 = (int(one.findtext(f"bndbox/{c}") or "") for c in ("xmin", "ymin", "xmax", "ymax"))
        found.append((one.findtext("name") or "", x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1))
    return found


def stems(root: Path, split: str) -> list[str]:
    return (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()


def coco_json(root: Path, names: list[str]) -> str:
    """With an unused category, as Roboflow writes one, and unordered ids."""
    categories = [{"id": 0, "name": "things"}, {"id": 7, "name": "b"}, {"id": 3, "name": "a"}]
    ids = {"a": 3, "b": 7}
    images, annotations = [], []
    for i, name in enumerate(names):
        images.append({"id": 100 - i, "file_name": f"{name}.jpg", "width": 96, "height": 80})
        for label, *box in things(root, name):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": 100 - i,
                    "category_id": ids[label],
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def yolo_text(root: Path, name: str) -> str:
    lines = (
        (("b", "a").index(label), (x + w / 2) / 96, (y + h / 2) / 80, w / 96, h / 80)
        for label, x, y, w, h in things(root, name)
    )
    return "".join(" ".join(map(str, line)) + "\n" for line in lines)


def copy(root: Path, name: str, to: Path, kind: str = "jpg") -> None:
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / {"jpg": "JPEGImages", "xml": "Annotations"}[kind] / f"{name}.{kind}", to)


def coco(root: Path, to: Path) -> None:
    (to / "annotations").mkdir(parents=True)
    for split, part in PARTS.items():
        (to / "annotations" / f"instances_{part}2017.json").write_text(coco_json(root, stems(root, split)))
        (to / "annotations" / f"captions_{part}2017.json").write_text(
            '{"images": [], "annotations": [], "categories": []}'
        )
        for name in stems(root, split):
            copy(root, name, to / f"{part}2017")


def coco_beside(root: Path, to: Path) -> None:
    """As Roboflow exports it."""
    for split, folder in (("trainval", "train"), ("test", "valid")):
        for name in stems(root, split):
            copy(root, name, to / folder)
        (to / folder / "_annotations.coco.json").write_text(coco_json(root, stems(root, split)))


def yolo(root: Path, to: Path) -> None:
    for split, part in PARTS.items():
        (to / "labels" / part).mkdir(parents=True)
        for name in stems(root, split):
            copy(root, name, to / "images" / part)
            (to / "labels" / part / f"{name}.txt").write_text(yolo_text(root, name))
    (to / "data.yaml").write_text(
        "path: /another/machine\ntrain: images/train\nval: images/val\nnames:\n  0: b\n  1: a\n"
    )


def yolo_by_part(root: Path, to: Path) -> None:
    """As Roboflow exports it: the paths start with a folder that does not exist."""
    for split, folder in (("trainval", "train"), ("test", "valid")):
        (to / folder / "labels").mkdir(parents=True)
        for name in stems(root, split):
            copy(root, name, to / folder / "images")
            (to / folder / "labels" / f"{name}.txt").write_text(yolo_text(root, name))
    (to / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['b', 'a']\n"
    )


def yolo_lists(root: Path, to: Path) -> None:
    yolo(root, to)
    for split, part in PARTS.items():
        (to / f"{part}.txt").write_text(
            "".join(f"./images/{part}/{name}.jpg\n" for name in stems(root, split))
        )
    (to / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [b, a]\n")


def voc_beside(root: Path, to: Path) -> None:
    for split, folder in (("trainval", "train"), ("test", "valid")):
        for name in stems(root, split):
            copy(root, name, to / folder)
            copy(root, name, to / folder, "xml")


def voc_named(root: Path, to: Path) -> None:
    """Folders with other names, each with its splits."""
    for split, part in PARTS.items():
        for name in stems(root, split):
            copy(root, name, to / "images" / part)
            copy(root, name, to / "annotations" / part, "xml")


def voc_lists(root: Path, to: Path) -> None:
    """train.txt and val.txt, with suffixes."""
    shutil.copytree(root, to)
    lists = to / "ImageSets" / "Main"
    for split, part in PARTS.items():
        (lists / f"{part}.txt").write_text("".join(f"{name}.jpg\n" for name in stems(root, split)))
        (lists / f"{split}.txt").unlink()


LAYOUTS = [coco, coco_beside, yolo, yolo_by_part, yolo_lists, voc_beside, voc_named, voc_lists]


@pytest.fixture(name="voc", scope="module")
def voc_fixture(tmp_path_factory):
    return make_voc(tmp_path_factory.mktemp("voc") / "set", train=8, test=4)


def opened(root: Path, data: str = "detectfolder", **kwargs):
    given = {"batch": 2, "resolution": 64, "ssd_augment": False, "flip": "none"} | kwargs
    return open_data(resolve(data=data, data_dir=str(root), **given))


def targets(part) -> dict[str, tuple]:
    return {
        Path(path).stem: (target["boxes"], target["labels"])
        for path, target in zip(part.paths, part.targets, strict=True)
    }


# ------------------------------------------------------------ the same boxes


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_the_same_boxes_are_the_same_targets_and_the_same_map(voc, tmp_path, layout):
    layout(voc, tmp_path / "set")
    there, here = opened(voc, "vocfolder"), opened(tmp_path / "set")
    assert here.classes == there.classes == ["a", "b"]
    assert here.facts["faults"] == []
    assert (here.facts["train_boxes"], here.facts["val_boxes"]) == (
        there.facts["train_boxes"],
        there.facts["val_boxes"],
    )
    for mine, other in ((here.train, there.train), (here.val, there.val)):
        mine, other = targets(mine), targets(other)
        assert mine.keys() == other.keys()
        for stem, (boxes, labels) in mine.items():
            torch.testing.assert_close(boxes, other[stem][0], rtol=0, atol=1e-4)
            assert torch.equal(labels, other[stem][1])
    maps = [mean_average_precision(data.val) for data in (here, there)]
    assert 0.05 < maps[1] < 0.95
    assert maps[0] == maps[1]


def mean_average_precision(part) -> float:
    """Of detections made from the truth, shifted by a few pixels and some with the wrong class; images sorted
    by name.
    """
    metric = VOCMeanAveragePrecision(2)
    order = sorted(range(len(part)), key=lambda i: Path(part.paths[i]).stem)
    draw = torch.Generator().manual_seed(0)
    for i in order:
        truth = part.targets[i]
        n = len(truth["labels"])
        move = torch.randint(0, 8, (n, 1), generator=draw).float().expand(n, 4)
        labels = (truth["labels"] + (torch.rand(n, generator=draw) < 0.3)) % 2
        metric.update(
            [{"boxes": truth["boxes"] + move, "scores": torch.rand(n, generator=draw), "labels": labels}],
            [truth],
        )
    return float(metric.compute()["map"])


@pytest.mark.parametrize("layout", [voc_beside, voc_named, voc_lists], ids=lambda layout: layout.__name__)
def test_vocfolder_reads_vocs_xml_wherever_it_lies(voc, tmp_path, layout):
    layout(voc, tmp_path / "set")
    assert len(opened(tmp_path / "set", "vocfolder").train) == 8


@pytest.mark.parametrize(
    "layout", [coco_beside, yolo_by_part, voc_beside], ids=lambda layout: layout.__name__
)
def test_the_key_is_of_what_the_folder_holds(voc, tmp_path, layout):
    root = tmp_path / "set"
    layout(voc, root)
    key = lambda at: resolve(data="detectfolder", data_dir=str(at)).key()
    keys = [key(root)]
    assert key(shutil.copytree(root, tmp_path / "copy")) == keys[0]
    (tmp_path / "copy" / "notes.md").write_text("of no use")
    assert key(tmp_path / "copy") == keys[0]
    boxes = next(path for path in sorted(root.rglob("*")) if path.suffix in (".json", ".txt", ".xml"))
    boxes.write_text(boxes.read_text() + "\n")
    keys.append(key(root))
    image = next(iter(sorted(root.rglob("*.jpg"))))
    Image.new("RGB", (96, 80)).save(image)
    keys.append(key(root))
    assert len(set(keys)) == 3


def test_the_layout_of_before_keeps_its_fingerprint(voc):
    """`layout.look` of trainval and test; committed rows record it under `images`."""
    from hbo.tasks.detect import layout

    images = resolve(data="vocfolder", data_dir=str(voc)).identity()["images"]
    assert images == layout.look([(voc, "trainval"), (voc, "test")])[0]
    assert resolve(data="detectfolder", data_dir=str(voc)).identity()["images"] == images


@pytest.mark.slow
def test_a_detector_trains_and_is_evaluated_on_such_a_folder(voc, tmp_path):
    coco(voc, tmp_path / "set")
    args = [
        "--data",
        "detectfolder",
        "--data_dir",
        tmp_path / "set",
        "--width",
        0.1,
        "--resolution",
        64,
        "--batch",
        4,
    ]
    args += [
        "--epochs",
        1,
        "--warmup",
        0,
        "--warmup_from",
        0,
        "--schedule",
        "constant",
        "--workers",
        0,
        "--threads",
        1,
    ]
    text, err = call("hbo.fit", *args, "--out", tmp_path / "runs")
    assert "mAP, 11 points" in text
    assert "Traceback" not in err
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/*/row.json"))
    assert json.loads(call("hbo.evaluate", run, "--json")[0])["images"] == 4


# ------------------------------------------------------------ folders without splits


def whole(voc: Path, to: Path) -> Path:
    for split in PARTS:
        for name in stems(voc, split):
            copy(voc, name, to / "imgs")
            copy(voc, name, to / "xml", "xml")
    return to


def test_a_folder_that_is_not_split_reports_a_share_the_same_for_every_seed(voc, tmp_path):
    root = whole(voc, tmp_path / "set")
    with pytest.raises(
        DataError, match=r"VOC's XML, 12 images, not split into train and val; --val_split 0\.2"
    ):
        opened(root)
    data = [opened(root, val_split=0.25, seed=seed) for seed in (0, 1)]
    assert (len(data[0].train), len(data[0].val)) == (9, 3)
    assert data[0].val.paths == data[1].val.paths
    assert not set(data[0].train.paths) & set(data[0].val.paths)
    keys = {resolve(data="detectfolder", data_dir=str(root), val_split=share).key() for share in (0.25, 0.3)}
    assert len(keys) == 2
    assert counts("detectfolder", str(root)) == (12, 0, 2)


def test_a_share_of_a_folder_that_is_split_is_refused(voc, tmp_path):
    coco(voc, tmp_path / "set")
    with pytest.raises(
        UserError, match=r"val_split=0\.2: .* is already split \(8 images in train, 4 images in val\)"
    ):
        opened(tmp_path / "set", val_split=0.2)
    with pytest.raises(UserError, match=r"val_split=0\.2: PASCAL VOC is already split"):
        resolve(data="voc", val_split=0.2)
    with pytest.raises(UserError, match=r"val_split=0\.6: must be in"):
        resolve(data="detectfolder", data_dir=str(tmp_path / "set"), val_split=0.6)


def test_one_list_of_vocs_is_split_too(voc, tmp_path):
    root = Path(shutil.copytree(voc, tmp_path / "set"))
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    data = opened(root, "vocfolder", val_split=0.25)
    assert (len(data.train), len(data.val)) == (6, 2)


# ------------------------------------------------------------ features of each format


# ------------------------------------------------------------ errors
