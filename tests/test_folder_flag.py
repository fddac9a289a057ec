"""A folder that the data set would ignore is an error, wherever it is given; no other data set is used
silently.
"""

import pytest
import torch
import yaml
from conftest import ROOT, call, make_folder, make_market, make_voc
from PIL import Image
from test_formats import coco_beside, voc_beside, yolo

from hbo.config import resolve
from hbo.errors import UserError
from hbo.fit import fit
from hbo.runs import checkpoint
from hbo.sweep import study
from hbo.tasks import SETS

NONE = [name for name, one in SETS.items() if not one.takes_folder]


def refused(**given):
    with pytest.raises(UserError) as error:
        resolve(**given)
    return str(error.value)


def test_these_sets_take_no_folder():
    assert {"elpv", "digits", "fake"} <= set(NONE)
    assert not {"imagefolder", "imagenet", "imagenette", "cifar10", "voc", "vocfolder", "marketfolder"} & set(
        NONE
    )


@pytest.mark.parametrize("data", NONE)
def test_data_dir_for_a_set_without_a_folder_is_an_error(data, tmp_path):
    said = refused(data=data, data_dir=str(tmp_path))
    assert said.startswith(f"data_dir={tmp_path}: data={data} uses no folder")
    assert "use --data imagefolder" in said
    assert resolve(data=data, data_dir=None).data_dir is None
    assert "uses no folder" in refused(variant=f"data={data} data_dir=photos")


def test_the_default_set_is_not_trained_in_place_of_a_folder(tmp_path):
    folder = make_folder(tmp_path / "folder", {"x": 2, "y": 2}, {"x": 1, "y": 1})
    voc, market = make_voc(tmp_path / "voc"), make_market(tmp_path / "market")
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / "devkit" / year).mkdir(parents=True)
    (tmp_path / "cifar" / "cifar-10-batches-py").mkdir(parents=True)
    assert (
        resolve(data_dir=str(folder)).data
        == resolve(data_dir=str(folder), task="classify").data
        == "imagefolder"
    )
    for path, data in ((voc, "vocfolder"), (market, "marketfolder"), (tmp_path / "devkit", "voc"),
                       (tmp_path / "cifar", "cifar10")):  # fmt: skip
        assert f"use --data {data} for" in refused(data_dir=str(path))
    assert f"use --data_dir {folder}, which contains train/ and val/" in refused(data_dir=str(tmp_path))


@pytest.mark.parametrize("given", [{}, {"data": "digits"}, {"data": "imagefolder"}, {"val_split": 0.2}])
def test_a_missing_folder_is_reported_first(given, tmp_path):
    missing = tmp_path / "not there"
    with pytest.raises(UserError, match=f"^data_dir={missing}: no such folder"):
        resolve(data_dir=str(missing), **given).identity()


def test_a_default_that_was_not_typed_is_not_named(tmp_path):
    missing = tmp_path / "nothere"
    assert refused(data_dir=str(missing)) == f"data_dir={missing}: no such folder"
    assert refused(data_dir=str(missing), data="elpv").endswith(
        "; correct its name, or remove --data_dir, as data=elpv uses no folder"
    )


def test_a_missing_folders_neighbour_is_suggested(tmp_path):
    (tmp_path / "photos").mkdir()
    for given in ({}, {"data": "imagefolder"}):
        with pytest.raises(UserError) as error:
            resolve(data_dir=str(tmp_path / "photo"), **given).identity()
        assert str(error.value).endswith(f"/photo: no such folder; did you mean {tmp_path / 'photos'}?")


@pytest.mark.parametrize("given", [{}, {"data": "imagefolder"}])
@pytest.mark.parametrize("split", [{}, {"val_split": 0.2}])
def test_images_outside_class_folders_are_named_at_once(given, split, tmp_path):
    for name in ("1.jpg", "2.JPG"):
        (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        resolve(data_dir=str(tmp_path), **given, **split).identity()
    assert (
        str(error.value)
        .removeprefix("data_dir=")
        .startswith(f"{tmp_path}: 2 images but no class folders; put them into {tmp_path}/CLASS/")
    )
    (tmp_path / "2.JPG").unlink()
    (tmp_path / "1.jpg").rename(tmp_path / "1.txt")
    with pytest.raises(UserError, match="contains no images"):
        resolve(data_dir=str(tmp_path), **given, **split).identity()


@pytest.mark.parametrize("command", ["hbo.fit", "hbo.cost"])
def test_commands_report_it_in_one_line(command, tmp_path):
    more = ("--out", tmp_path / "runs") if command == "hbo.fit" else ()
    _, err = call(command, "--data_dir", tmp_path, *more, expect=2)
    assert err.startswith(f"error: data_dir={tmp_path}: contains no images (")
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    run = resolve(data="digits", width=0.1, out=str(tmp_path / "file" / "runs"))
    with pytest.raises(UserError, match=r"^out=.*/file/runs: the run's folder .* cannot be made \(Not a dir"):
        fit(run)


def test_a_sweep_reports_it(tmp_path):
    sweep = {
        "program": "hbo/fit.py",
        "method": "grid",
        "parameters": {"seed": {"values": [0, 1]}, "study": {"value": "s"}},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep))
    out, err = call("hbo.sweep", "plan", tmp_path / "s.yaml", "--set", f"data_dir={tmp_path}", expect=2)
    assert "contains no images" in out + err
    assert "Traceback" not in out + err


def test_another_set_for_a_sweep_drops_its_folder():
    """`--set data=elpv` works as the tables' files say; setting a folder too is an error."""
    rows = study.read(ROOT / "sweeps" / "table2.yaml", {"data": ["elpv", "imagenet"]}).rows
    assert {(row["data"], row["data_dir"]) for row in rows} == {("elpv", None), ("imagenet", "imagenet")}
    assert {resolve(**row).data_dir for row in rows} == {None, "imagenet"}
    (first, *_) = study.read(ROOT / "sweeps" / "table2.yaml", {"data": "elpv", "data_dir": "photos"}).rows
    assert "uses no folder" in refused(**first)


def test_an_older_checkpoint_with_a_folder_can_be_evaluated(tmp_path):
    """Its data_dir was ignored; and another set does not inherit the folder of the run's own set."""
    run = resolve(
        data="digits", width=0.1, epochs=1, limit_batches=1, wandb="disabled", threads=1, out=str(tmp_path)
    )
    fit(run)
    (path,) = tmp_path.glob("*/*/last.ckpt")
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["data_dir"] = "photos"
    torch.save(content, tmp_path / "last.ckpt")
    assert checkpoint.trained(tmp_path, {}).run.data_dir is None
    content["hyper_parameters"]["data"] = "cifar10"
    torch.save(content, tmp_path / "last.ckpt")
    assert checkpoint.trained(tmp_path, {}).run.data_dir == "photos"
    assert checkpoint.trained(tmp_path, {"data": "digits"}).run.data_dir is None
    with pytest.raises(UserError, match="uses no folder"):
        checkpoint.trained(tmp_path, {"data": "digits", "data_dir": "photos"})


def test_an_image_in_place_of_a_folder(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "one.jpg")
    with pytest.raises(UserError, match="is an image; give the folder that contains the class folders"):
        resolve(data_dir=str(tmp_path / "one.jpg"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"data_dir=photos: no such folder in {tmp_path}"):
        resolve(data_dir="photos")


@pytest.mark.parametrize("layout", [coco_beside, yolo, voc_beside], ids=["COCO", "YOLO", "VOC"])
def test_a_folder_of_boxes_is_read_by_its_contents(layout, tmp_path, request):
    boxes = tmp_path / "boxes"
    layout(make_voc(tmp_path / "voc", train=2, test=2), boxes)
    assert resolve(task="detect", data_dir=str(boxes)).data == "detectfolder"
    said, format = refused(data_dir=str(boxes)), request.node.callspec.id
    assert f"use --data detectfolder for the images of that folder, which has {format}'s annotations" in said
    assert resolve(task="detect", data_dir=str(tmp_path / "voc")).data == "vocfolder"


def test_a_devkit_and_a_folder_to_come_remain_voc(tmp_path):
    kit = make_voc(tmp_path / "VOCdevkit" / "VOC2007", train=1, test=1).parent
    for path in (kit, tmp_path, tmp_path / "none"):
        assert resolve(task="detect", data_dir=str(path)).data == "voc"
    assert resolve(task="detect").data == "voc"
    assert resolve(task="reid", data_dir=str(tmp_path)).data == "market1501"
