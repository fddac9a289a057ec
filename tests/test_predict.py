"""For every task `hbo.predict` gives the same results on photographs as the run's own evaluation; and
mistakes.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, make_folder, make_market, make_voc, only_row, released_state
from flagged import flags
from PIL import Image
from pycocotools.coco import COCO
from torchvision.models import ResNet18_Weights

import hbo
from hbo.analysis import mistakes
from hbo.config import resolve
from hbo.errors import UserError
from hbo.predict import _check, found, predict

SMALL = flags(width=0.1, resolution=64, batch=8, epochs=2, threads=1, workers=0, lr=0.01)


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A classifier of three classes: its image folder, its run, its outcomes."""
    root = tmp_path_factory.mktemp("classified")
    folder = make_folder(root / "set", dict.fromkeys("abc", 8), dict.fromkeys("abc", 6), size=70)
    call("hbo.fit", "--data", "imagefolder", "--data_dir", folder, *SMALL, "--out", root / "runs")
    return folder, only_row(root / "runs")[1], dict(np.load(only_row(root / "runs")[1] / "outcomes.npz"))


def table(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_predictions_are_those_of_the_run(classified, tmp_path, capsys):
    folder, run, outcomes = classified
    assert predict(str(run), [str(folder / "val")], tmp_path / "all.csv", {}, top=2) == []
    rows = table(tmp_path / "all.csv")
    assert [row["path"] for row in rows] == sorted(str(path) for path in folder.glob("val/*/*"))
    by_name = {row["path"].removeprefix(f"{folder}/"): row for row in rows}
    assert sorted(outcomes["name"]) == sorted(by_name)
    for name, said, score in zip(outcomes["name"], outcomes["prediction"], outcomes["score"], strict=True):
        assert by_name[name]["class"] == "abc"[said]
        assert float(by_name[name]["probability"]) == pytest.approx(score, rel=1e-4)
        assert float(by_name[name]["probability_2"]) <= float(by_name[name]["probability"])
    assert "18 photographs: " in capsys.readouterr().out
    out, _ = call("hbo.predict", run, folder / "val" / "a" / "0.png", "--top", 1)
    assert out.split()[1] == by_name["val/a/0.png"]["class"]


@pytest.mark.slow
def test_unreadable_images_are_named_and_the_rest_written(classified, tmp_path):
    folder, run, _ = classified
    whole = Image.open(folder / "val" / "a" / "0.png")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    whole.save(tmp_path / "photos" / "whole.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    whole.rotate(90, expand=True).save(tmp_path / "photos" / "deep" / "turned.png", exif=exif)
    (tmp_path / "photos" / "cut.png").write_bytes((folder / "val" / "a" / "0.png").read_bytes()[:900])
    (tmp_path / "photos" / "notes.txt").write_text("not an image by its name: passed over")
    out, err = call("hbo.predict", run, tmp_path / "photos", "--out", tmp_path / "all.csv", expect=1)
    assert "cut.png: not a readable image" in err
    assert "1 of 3 photographs could not be read" in err
    assert "2 photographs: " in out
    turned, plain = table(tmp_path / "all.csv")
    assert [part for name, part in turned.items() if name != "path"] == [
        part for name, part in plain.items() if name != "path"
    ]


@pytest.mark.parametrize(("images", "options", "said"), [
    (["none.jpg"], {}, "images=none.jpg: no such file or folder"),
    (["*.jpg"], {}, "no image matches"),
    (["."], {}, "the folder contains no image"),
    (["a.png"], {"score": 0.3}, "is an option of task=detect"),
    (["a.png"], {"top": 0}, "top=0: must be at least 1"),
    (["a.png"], {"out": "x.json"}, "writes .csv"),
    (["a.png"], {"out": "none/x.csv"}, "there is no folder none"),
    (["a.txt"], {}, "none of the 1 photographs can be read"),
])  # fmt: skip
@pytest.mark.slow
def test_impossible_requests_are_errors(classified, tmp_path, monkeypatch, images, options, said):
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    if images == ["a.png"]:
        Image.new("RGB", (70, 70)).save("a.png")
    out = options.pop("out", None)
    with pytest.raises(UserError, match=said.replace(".", r"\.").replace("*", r"\*")):
        predict(str(classified[1]), images, out and Path(out), {}, **options)
    assert not list(tmp_path.glob("x.*"))


def test_a_photograph_named_twice_is_predicted_once(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    word = [str(tmp_path / "b.png"), str(tmp_path), str(tmp_path / "**" / "*.webp")]
    assert found(word) == [str(tmp_path / name) for name in ("b.png", "a.JPG", "sub/c.webp")]


@pytest.mark.slow
def test_a_run_is_found_by_its_key(classified, monkeypatch, tmp_path):
    _, run, _ = classified
    (tmp_path / "runs").symlink_to(run.parents[1])
    monkeypatch.chdir(tmp_path)
    assert hbo.load(run.name).classes == ["a", "b", "c"]
    (tmp_path / "two" / "runs").mkdir(parents=True)
    for study in ("one", "other"):
        (tmp_path / "two" / "runs" / study).symlink_to(run.parent)
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(UserError, match="2 studies have this run; name one, such as runs/one/"):
        hbo.load(run.name)


@pytest.mark.slow
def test_the_most_confident_mistakes_have_the_highest_probability(classified, tmp_path):
    _, run, outcomes = classified
    it = mistakes.mistakes(run)
    wrong = [i for i in range(18) if outcomes["label"][i] != outcomes["prediction"][i]]
    assert it.surest == sorted(wrong, key=lambda i: -outcomes["score"][i])
    assert it.matrix.sum() == 18
    for true in range(3):
        for said in range(3):
            assert it.matrix[true, said] == sum(
                (outcomes["label"] == true) & (outcomes["prediction"] == said)
            )
    assert mistakes.lines(it)[0].startswith(f"{len(wrong)} of 18 images are wrong")
    figure = mistakes.picture(it, images=2)
    shown = [axes for axes in figure.subfigs[0].axes if axes.images]
    assert len(shown) == 2
    first = np.asarray(shown[0].images[0].get_array())
    assert (
        first == it.opened.data.val[0, int(outcomes["index"][it.surest[0]])][0].permute(1, 2, 0).numpy()
    ).all()
    other = make_folder(tmp_path / "other", dict.fromkeys("abc", 8), {"a": 8, "b": 4, "c": 6}, size=70)
    _, err = call("hbo.analysis.mistakes", run, "--data_dir", other, expect=2)
    assert "not the run's data set" in err
    (tmp_path / "runs" / "default").mkdir(parents=True)
    (tmp_path / "runs" / "default" / run.name).symlink_to(run)
    out, _ = call("hbo.analysis.mistakes", run.name, cwd=tmp_path)  # by its key
    assert out.splitlines()[0] == mistakes.lines(it)[0]
    _, err = call("hbo.analysis.mistakes", tmp_path, expect=2)
    assert "no finished run of a classifier" in err


@pytest.mark.slow
def test_a_detectors_boxes_are_those_of_its_run_in_cocos_format(tmp_path):
    folder = make_voc(tmp_path / "voc", train=8, test=3)
    args = ["--data", "vocfolder", "--data_dir", folder, "--width", 0.1, "--resolution", 64, "--batch", 4]
    brief = ["--epochs", 1, "--warmup", 0.5, "--schedule", "cosine", "--threads", 1, "--workers", 0]
    call("hbo.fit", *args, *brief, "--out", tmp_path / "runs")
    run = only_row(tmp_path / "runs")[1]
    outcomes = np.load(run / "outcomes.npz")
    photographs = [folder / name for name in outcomes["name"]]
    call("hbo.predict", run, *photographs, "--score", 0, "--out", tmp_path / "boxes.json")
    coco = COCO(tmp_path / "boxes.json")
    assert [coco.imgs[i]["file_name"] for i in sorted(coco.imgs)] == list(map(str, photographs))
    assert {c["name"] for c in coco.cats.values()} == {"a", "b"}
    # As COCO results are submitted.
    assert len(coco.loadRes(coco.dataset["annotations"]).anns) == len(outcomes["score"])
    for place, index in enumerate(outcomes["index"], start=1):
        assert (coco.imgs[place]["width"], coco.imgs[place]["height"]) == (96, 80)
        own = outcomes["image"] == index
        corners = outcomes["box"][own] * np.array([96, 80, 96, 80]) / 64
        boxes = coco.loadAnns(coco.getAnnIds(imgIds=[place]))
        assert np.array([b["score"] for b in boxes]) == pytest.approx(outcomes["score"][own], rel=1e-3)
        x, y, w, h = np.array([b["bbox"] for b in boxes]).T
        assert np.stack([x, y, x + w, y + h], 1) == pytest.approx(corners, abs=0.05)
        assert [b["category_id"] - 1 for b in boxes] == outcomes["label"][own].tolist()


@pytest.mark.slow
def test_features_retrieve_as_the_run_does(tmp_path):
    """Mean average precision from the written features alone, by brute force."""
    root = make_market(tmp_path / "market", train=4, test=3, views=4)
    args = [
        *flags(data="marketfolder", data_dir=root, resolution=64, width=0.1, batch=8),
        "--bn_neck",
        "--flip_features",
    ]
    # After fewer updates the running statistics lag: almost equal features are ranked by their last digits.
    call("hbo.fit", *args, "--epochs", 20, "--threads", 1, "--workers", 0, "--out", tmp_path / "runs")
    row, run = only_row(tmp_path / "runs")
    _, err = call("hbo.predict", run, root / "query", expect=2)
    assert "add --out features.npz" in err
    call("hbo.predict", run, root / "query", root / "bounding_box_test", "--out", tmp_path / "f.npz")
    saved = np.load(tmp_path / "f.npz")
    vectors = saved["features"].astype(float)
    assert np.linalg.norm(vectors - vectors[0], axis=1).mean() > 0.1 * np.linalg.norm(vectors[0])
    assert row["distance"] == "euclidean"
    names = [path.rsplit("/", 1)[1] for path in saved["paths"].tolist()]
    who, camera = [n.split("_")[0] for n in names], [n.split("_")[1][:2] for n in names]
    gallery = [i for i, path in enumerate(saved["paths"]) if "bounding_box_test" in path and who[i] != "-1"]
    precisions = []
    for q in (i for i, path in enumerate(saved["paths"]) if "/query/" in path):
        ranked = [i for i in gallery if (who[i], camera[i]) != (who[q], camera[q])]
        ranked.sort(key=lambda i: float(np.linalg.norm(vectors[q] - vectors[i])))
        hits = [place for place, i in enumerate(ranked, start=1) if who[i] == who[q]]
        precisions.append(np.mean([n / place for n, place in enumerate(hits, start=1)]))
    assert np.mean(precisions) == pytest.approx(row["map"], abs=1e-6)
    net = hbo.load(run)  # averaged over mirror images, as in the run
    with torch.no_grad():
        one = net(net.preprocess(saved["paths"][0])[None])[0]
    assert one.numpy() == pytest.approx(saved["features"][0], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_release_has_imagenets_names(tmp_path):
    torch.save(released_state("width0.25_div8_k2"), tmp_path / "hbonet.pth")
    Image.new("RGB", (300, 260), (30, 90, 40)).save(tmp_path / "green.png")
    out, _ = call("hbo.predict", tmp_path / "hbonet.pth", tmp_path / "green.png", "--out", tmp_path / "o.csv")
    (row,) = table(tmp_path / "o.csv")
    assert row["class"] in ResNet18_Weights.DEFAULT.meta["categories"]
    assert "1 photographs: " in out


def test_a_file_that_cannot_be_written_is_named_as_typed(tmp_path):
    """Before the work starts; with `.part` this name is too long."""
    out = tmp_path / f"{'x' * 250}.csv"
    with pytest.raises(UserError, match=rf"^out={out}: cannot be written \(.*\); name another file$"):
        _check(resolve(data="digits"), out, {})
    _check(resolve(data="digits"), tmp_path / "x.csv", {})
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.csv.part").write_text("a user's")
    _check(resolve(data="digits"), tmp_path / "x.csv", {})
    assert (tmp_path / "x.csv.part").read_text() == "a user's"
