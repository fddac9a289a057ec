"""Class names are in checkpoint, row and export; another folder's are compared with them, and keep the run's
order.
"""

import json
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from conftest import call, make_folder, make_market, make_voc, only_row
from flagged import flags
from PIL import Image

from hbo import export
from hbo.config import resolve
from hbo.deploy.runtimes import named
from hbo.errors import DataError, UserError
from hbo.evaluate import evaluate
from hbo.runs import checkpoint
from hbo.tasks.build import make, open_data
from hbo.tasks.classify.layout import scan
from hbo.tasks.classify.module import Classify

NAMES = ["apple", "caf\u00e9", "plum"]  # sorted by name, the accented letter as one character
BRIGHT = {"apple": 20, "caf\u00e9": 120, "plum": 230}


def shades(root, parts, names=NAMES):
    """Grey photographs with one brightness per class, so that the pixels show the class."""
    draw = np.random.RandomState(0)
    for part, n in parts.items():
        for name, bright in zip(names, BRIGHT.values(), strict=False):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(
                    (bright + draw.randint(-60, 61, (40, 40, 3))).clip(0, 255).astype(np.uint8)
                ).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on three classes: its row, its folder, and the folder of its photographs."""
    root = tmp_path_factory.mktemp("names")
    data = shades(root / "set", {"train": 8, "val": 4})
    call("hbo.fit", "--data", "imagefolder", "--data_dir", data, "--resolution", 32, "--eval_resize", 32, "--crop", "none", "--width",
         0.1, "--epochs", 8, "--batch", 8, "--lr", 0.01, "--threads", 1, "--workers", 0, "--out", root / "runs")  # fmt: skip
    row, folder = only_row(root / "runs")
    return row, folder, data


def top1(folder, where, **given):
    return evaluate(folder, {"data_dir": str(where), "workers": 0, "threads": 1, **given})[0]


def test_checkpoint_and_row_have_the_class_names(trained):
    row, folder, _ = trained
    assert row["classes"] == NAMES
    assert torch.load(folder / "last.ckpt", weights_only=True)["classes"] == NAMES
    assert checkpoint.trained(folder, {}).classes == NAMES


def test_another_unicode_form_of_the_names_is_the_same_set(trained, tmp_path):
    row, folder, data = trained
    other = shutil.copytree(data, tmp_path / "other")
    for part in ("train", "val"):
        (other / part / NAMES[1]).rename(other / part / unicodedata.normalize("NFD", NAMES[1]))
    assert list(scan(other, "val")) == NAMES
    assert top1(folder, other)["top1"] == row["top1"]
    assert open_data(resolve(data="imagefolder", data_dir=str(other), batch=8)).classes == NAMES


def test_one_name_in_two_unicode_forms_is_an_error(tmp_path):
    root = shades(tmp_path, {"train": 2, "val": 2})
    shutil.copytree(root / "train" / NAMES[1], root / "train" / unicodedata.normalize("NFD", NAMES[1]))
    with pytest.raises(DataError, match="two forms of Unicode"):
        scan(root, "train")


def test_other_class_names_are_an_error_that_names_them(trained, tmp_path):
    _, folder, _ = trained
    renamed = shades(tmp_path / "renamed", {"train": 2, "val": 2}, ["apple", "caf\u00e9", "aubergine"])
    with pytest.raises(UserError, match="unknown 'aubergine'; missing 'plum'"):
        top1(folder, renamed)
    with pytest.raises(UserError, match="unknown 'aubergine'; missing 'plum'"):
        export.images(checkpoint.trained(folder, {"data_dir": str(renamed)}), needed=False, asked=True)
    fewer = shades(tmp_path / "fewer", {"train": 2, "val": 2}, ["apple", "caf\u00e9"])
    with pytest.raises(UserError, match="missing 'plum'"):
        top1(folder, fewer)
    with pytest.raises(UserError, match="unknown '0', '1'"):
        top1(folder, "unused", data="digits", data_dir=None)


def test_labels_are_in_the_order_of_the_run(trained, tmp_path):
    """A checkpoint whose outputs are not in the order of the folder's names, as one from another system."""
    _, folder, data = trained
    content = torch.load(folder / "last.ckpt", weights_only=True)
    order = [2, 0, 1]
    last = [name for name in content["state_dict"] if name.startswith("net.classifier.")]
    assert last
    for name in last:
        content["state_dict"][name] = content["state_dict"][name][order]
    torch.save(content | {"classes": [NAMES[i] for i in order]}, tmp_path / "last.ckpt")
    here, there = top1(folder, data), top1(tmp_path / "last.ckpt", data)
    assert there == pytest.approx(here, rel=1e-6)
    assert open_data(resolve(data="imagefolder", data_dir=str(data), batch=8), known=[NAMES[i] for i in order]).val.labels == [
        *[0] * 4, *[1] * 4, *[2] * 4,
    ]  # fmt: skip


def test_evaluation_needs_only_the_evaluated_part(trained, tmp_path, capsys):
    _, folder, data = trained
    alone = tmp_path / "alone"
    shutil.copytree(data / "val", alone / "val")
    assert top1(folder, alone) == pytest.approx(top1(folder, data))
    assert capsys.readouterr().err == ""
    shutil.rmtree(alone / "val" / "apple")  # with a class missing, labels stay the run's
    assert top1(folder, alone)["images"] == 8
    assert "'apple': no validation images" in capsys.readouterr().err
    shutil.copytree(data / "train", tmp_path / "held" / "train")
    assert top1(folder, tmp_path / "held", holdout=0.5)["images"] == 12
    with pytest.raises(DataError, match="no such folder"):
        top1(folder, tmp_path / "held")


def test_a_checkpoint_without_names_says_that_they_could_not_be_compared(trained, tmp_path, capsys):
    row, folder, data = trained
    content = torch.load(folder / "last.ckpt", weights_only=True)
    del content["classes"]
    torch.save(content, tmp_path / "last.ckpt")
    assert top1(tmp_path, data)["top1"] == row["top1"]
    assert "no class names" in capsys.readouterr().err
    fewer = shades(tmp_path / "fewer", {"train": 2, "val": 2}, ["apple", "caf\u00e9"])
    with pytest.raises(UserError, match="has 3 classes, imagefolder has 2"):
        top1(tmp_path, fewer)


def test_export_takes_the_names_from_the_checkpoint_and_needs_no_images(trained, tmp_path):
    onnx = pytest.importorskip("onnx")
    _, folder, _ = trained
    content = torch.load(folder / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["data_dir"] = str(tmp_path / "gone")
    torch.save(content, tmp_path / "last.ckpt")
    path, about = export.export(tmp_path, {"threads": 1})
    assert about["real_images"] == 0
    assert "gone: no such folder" in about["why_no_images"]
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert metadata["classes"] == about["classes"] == NAMES
    if named("openvino").installed():
        with pytest.raises(DataError, match="int8 takes its ranges from training images"):
            export.export(tmp_path, {"threads": 1}, int8=True, to="openvino")
    with pytest.raises(DataError, match="elsewhere: no such folder"):
        export.export(tmp_path, {"threads": 1, "data_dir": str(tmp_path / "elsewhere")})


def test_the_model_card_names_the_folder_that_it_was_trained_on(trained, tmp_path):
    row, folder, _ = trained
    path, _ = export.export(folder, {}, file=str(tmp_path / "net.safetensors"), to="safetensors")
    card = path.with_suffix(".md").read_text()
    assert f"An image classifier trained on {row['folder']}; 3 classes: " in card


def test_a_run_does_not_resume_with_other_class_names(trained, tmp_path):
    """A published set is known by its counts, so the key is the same; the names in the checkpoint differ."""
    row, folder, data = trained
    out = shutil.copytree(folder.parents[1], tmp_path / "runs")
    (found,) = out.glob("*/*/row.json")
    found.write_text(json.dumps({**row, "state": "unfinished"}))
    content = torch.load(found.with_name("last.ckpt"), weights_only=True)
    torch.save(content | {"classes": NAMES[::-1]}, found.with_name("last.ckpt"))
    args = flags(data="imagefolder", data_dir=data, resolution=32, eval_resize=32, crop="none", width=0.1)
    args += flags(epochs=8, batch=8, lr=0.01, threads=1, workers=0, out=out)
    _, err = call("hbo.fit", *args, expect=2)
    assert "belongs to another run: classes (['plum'" in err
    assert len(err.strip().splitlines()) == 1


def test_evaluating_a_detector_needs_only_its_test_list(tmp_path):
    root = make_voc(tmp_path / "voc")
    (root / "ImageSets" / "Main" / "trainval.txt").unlink()
    run = resolve(data="vocfolder", data_dir=str(root), batch=2, resolution=64)
    data = open_data(run, reported=True, known=["a", "b"])
    assert (data.train, len(data.val), data.classes) == (None, 4, ["a", "b"])
    assert make(run, data).classes == ["a", "b"]
    with pytest.raises(UserError, match=r"whose classes are \['x'\]"):
        open_data(run, reported=True, known=["x"])
    with pytest.raises(DataError, match=r"trainval\.txt"):
        open_data(run)


def test_evaluating_a_re_identifier_needs_no_training_images(tmp_path):
    root = make_market(tmp_path / "market")
    shutil.rmtree(root / "bounding_box_train")
    run = resolve(data="marketfolder", data_dir=str(root), batch=4, resolution=64)
    data = open_data(run, reported=True)
    assert (data.train, len(data.val)) == (None, 28)
    assert make(run, data, num_classes=6).num_classes == 6
    with pytest.raises(DataError, match="bounding_box_train"):
        open_data(run)


def test_a_classifier_can_be_built_without_names():
    assert Classify(resolve(data="digits"), 10).classes is None


def test_folders_of_a_published_set_are_counted(tmp_path):
    root = make_folder(tmp_path, {"x": 2, "y": 2}, {"x": 1, "y": 1})
    with pytest.raises(DataError, match="2 classes, but imagenet has 1000"):
        open_data(resolve(data="imagenet", data_dir=str(root)), reported=True)
