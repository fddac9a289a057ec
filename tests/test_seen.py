"""Images that a network may have been trained on: its folder has gained photographs since, so that the split is
another one.
"""

import json
import shutil

import numpy as np
import pytest
from conftest import call, make_folder, only_row
from flagged import flags
from PIL import Image

from hbo.config import resolve
from hbo.evaluate import evaluate
from hbo.runs.seen import outside_val

BRIEF = flags(resolution=32, width=0.1, epochs=1, batch=4, lr=0.001, threads=1, workers=0, wandb="disabled")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder that it split: its folder, and that of its photographs."""
    root = tmp_path_factory.mktemp("seen")
    (make_folder(root / "made", {"ants": 20, "bees": 20}, {}) / "train").rename(root / "photos")
    call("hbo.fit", *flags(data_dir=root / "photos", val_split=0.2), *BRIEF, "--out", root / "runs")
    return only_row(root / "runs")[1], root / "photos"


def grown(photos, where):
    """A copy with 5 new photographs, which come first."""
    shutil.copytree(photos, where)
    draw = np.random.RandomState(9)
    for i in range(5):
        Image.fromarray(draw.randint(0, 256, (40, 47, 3), dtype=np.uint8)).save(where / "ants" / f"+{i}.png")
    return where


def not_in_val(folder, where):
    """The number in the evaluation's metrics, and the number of images evaluated."""
    metrics = evaluate(folder, {"data_dir": str(where), "workers": 0, "threads": 1})[0]
    return metrics.get("images_not_in_val"), metrics["images"]


@pytest.mark.slow
def test_a_grown_folder_is_evaluated_with_a_warning_and_a_count(trained, tmp_path, capsys):
    folder, photos = trained
    assert not_in_val(folder, photos) == (0, 8)
    assert not_in_val(folder, shutil.copytree(photos, tmp_path / "copy")) == (0, 8)
    assert capsys.readouterr().err == ""
    number, images = not_in_val(folder, grown(photos, tmp_path / "grown"))
    assert images == 9
    assert number in range(1, 10)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {number} of the 9 images evaluated were not among {folder.name}'s validation images, so that"
        " run may have been trained on them; evaluate on a folder of new photographs alone"
    ]
    alone = tmp_path / "alone" / "val"
    shutil.copytree(tmp_path / "grown", alone)
    assert not_in_val(folder, alone.parent) == (None, 45)  # its own part, not a drawn one
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_count_is_in_the_json_and_in_the_row_of_a_run_that_starts_from_it(trained, tmp_path):
    folder, photos = trained
    moved = shutil.copytree(folder, tmp_path / folder.name)
    more = grown(photos, tmp_path / "grown")
    out, err = call("hbo.evaluate", moved, "--data_dir", more, *flags(workers=0, threads=1), "--json")
    number = json.loads(out)["images_not_in_val"]
    assert number > 0
    assert err.count("warning: ") == 1
    start = flags(data_dir=more, val_split=0.2, backbone_checkpoint=moved, distill=moved / "last.ckpt")
    out, err = call("hbo.fit", *start, *BRIEF, "--out", tmp_path / "runs")
    row, tuned = only_row(tmp_path / "runs")
    assert row["val_not_in_backbones"] == row["val_not_in_teachers"] == number
    of = f"{number} of the 9 validation images were not validation images of that run"
    assert f"backbone_checkpoint={moved}: {of}" in err
    assert f"distill={moved / 'last.ckpt'}: {number} of the 9 validation images" in err
    assert f"the initial weights may have been trained on {number} validation images" in out
    _, err = call("hbo.evaluate", tuned, *flags(workers=0, threads=1))
    assert f"warning: {tuned.name} has val_not_in_backbones={number}: the initial weights may" in err


@pytest.mark.slow
def test_other_photographs_are_silent(trained, tmp_path, capsys):
    """Other names, or the same names on other photographs, as cameras give them."""
    folder, photos = trained
    renamed = shutil.copytree(photos, tmp_path / "renamed")
    for path in list(renamed.glob("*/*.png")):
        path.rename(path.with_stem(f"other{path.stem}"))
    alike = make_folder(tmp_path / "alike", {"bees": 25, "ants": 20}, {}) / "train"
    for where in (renamed, alike):
        assert not_in_val(folder, where)[0] is None
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_what_the_count_needs(trained, tmp_path):
    """A drawn split, a run's own checkpoint, and the outcomes of all its validation images."""
    folder, photos = trained
    run = resolve(data="imagefolder", data_dir=str(photos), val_split=0.2, batch=4)
    val = np.load(folder / "outcomes.npz")["name"].tolist()
    last = folder / "last.ckpt"
    assert outside_val(run, val, last) == 0
    assert outside_val(run, [*val, "ants/new.png"], last) == 1
    copy = shutil.copytree(photos, tmp_path / "copy")
    others = [name for path in copy.glob("*/*.png") if (name := str(path.relative_to(copy))) not in val]
    apart = resolve(data="imagefolder", data_dir=str(copy), val_split=0.2, batch=4)
    assert outside_val(apart, others, last) == 32  # no image in common, and each was trained on
    for given, path in ((run, tmp_path / "last.ckpt"), (run, folder / "other.pth"),
                        (resolve(data="digits"), last)):  # fmt: skip
        assert outside_val(given, val, path) is None
    part = shutil.copytree(folder, tmp_path / "part")
    row = json.loads((part / "row.json").read_text())
    (part / "row.json").write_text(json.dumps(row | {"val_images_seen": 4}))
    assert outside_val(run, val, part / "last.ckpt") is None  # its outcomes are those of some images
