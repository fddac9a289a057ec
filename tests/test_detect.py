"""Detectors trained in separate processes: they learn, resume bit for bit, share their images, start from a
classifier.
"""

import json

import numpy as np
import pytest
import torch
from conftest import call, make_voc, only_row, released_state, start
from flagged import flags
from PIL import Image
from resumed import same_run, wait_for, weights

from hbo.config import resolve
from hbo.data.sampling import EvalBatches, loader
from hbo.errors import UserError
from hbo.metrics import Detections, by_image, detection
from hbo.nets import build
from hbo.runs.weights import load_released
from hbo.tasks.build import open_data
from hbo.tasks.detect.module import Detect

SMALL = flags(data="vocfolder", width=0.1, resolution=64, batch=4, threads=1, workers=0)
BRIEF = [*SMALL, *flags(epochs=3, warmup=0.5, lr=0.01, schedule="cosine")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen training and five validation photographs, with a faulty box in each split."""
    root = make_voc(tmp_path_factory.mktemp("voc") / "set", train=16, test=5)
    for name in ("000003", "000017"):
        path = root / "Annotations" / f"{name}.xml"
        box = "<bndbox><xmin>5</xmin><ymin>9</ymin><xmax>5</xmax><ymax>9</ymax></bndbox>"
        path.write_text(
            path.read_text().replace("</annotation>", f"<object><name>a</name>{box}</object></annotation>")
        )
    return root


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    text, err = call("hbo.fit", *BRIEF, "--data_dir", folder, "--out", out)
    return out, text, err


def samples(task: Detect, data) -> list:
    return list(loader(data.val, EvalBatches(len(data.val), 4), 0))


# ------------------------------------------------------------ learning


@pytest.mark.slow
def test_a_detector_learns_eight_photographs(tmp_path):
    """Validated on the training photographs: every object is found, at its place, with its class."""
    root = make_voc(tmp_path / "set", train=8, test=1)
    lists = root / "ImageSets" / "Main"
    # The same photographs under other names: those of 1 are the test set, and an epoch is five updates, as
    # evaluating and saving take longer than an update.
    names = [f"{copy}{n:05d}" for copy in range(1, 7) for n in range(8)]
    for name in names:
        for part, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
            copied = root / part / f"0{name[1:]}.{suffix}"
            (root / part / f"{name}.{suffix}").write_bytes(copied.read_bytes())
    (lists / "test.txt").write_text("\n".join(names[:8]))
    (lists / "trainval.txt").write_text("\n".join(names[8:]))
    args = flags(data="vocfolder", data_dir=root, width=0.25, resolution=96, batch=8, epochs=16)
    args += flags(lr=0.05, schedule="cosine", warmup=1, ssd_augment="false", flip="none", threads=1)
    text, _ = call("hbo.fit", *args, "--workers", 0, "--eval_every", 8, "--out", tmp_path / "runs")
    row, _ = only_row(tmp_path / "runs")
    assert (row["train_images"], row["val_images_seen"]) == (40, 8)
    assert row["map"] > 0.95
    assert row["map_area"] > 0.95
    assert min(row["ap_a"], row["ap_b"]) > 0.9
    assert "mAP, 11 points" in text


# ------------------------------------------------------------ the row of a run


@pytest.mark.slow
def test_a_run_leaves_its_row_and_its_detections(folder, unbroken):
    out, text, err = unbroken
    row, run_folder = only_row(out)
    assert row["state"] == "done"
    assert row["classes"] == ["a", "b"]
    assert (row["left_out_boxes"], row["clipped_boxes"], row["difficult_boxes"]) == (2, 0, 0)
    assert [fault.split(":")[0] for fault in row["faults"]] == ["000003", "000017"]
    assert row["backbone_weights"] == "random"
    assert "initial weights" in text
    assert "2 dropped" in text
    outcomes = dict(np.load(run_folder / "outcomes.npz"))
    assert [name.split("/")[-1] for name in outcomes.pop("name")] == [
        f"{number:06d}.jpg" for number in range(16, 21)
    ]
    saved = {name: torch.from_numpy(values) for name, values in outcomes.items()}
    metrics = detection(saved, ["a", "b"])
    for name, value in metrics.items():
        assert row[name] == pytest.approx(value, rel=1e-9), name
    _, target = by_image(saved)
    data = open_data(resolve(data="vocfolder", data_dir=str(folder), resolution=64, batch=4))
    for mine, other in zip(target, data.val.targets, strict=True):
        assert mine["labels"].tolist() == other["labels"].tolist()
    assert "Traceback" not in err
    assert "Warning" not in err


@pytest.mark.slow
def test_evaluate_repeats_the_row(folder, unbroken, tmp_path):
    row, run_folder = only_row(unbroken[0])
    found = json.loads(call("hbo.evaluate", run_folder, "--json")[0])
    assert found.pop("images") == row["val_images"] == 5
    assert found == {name: pytest.approx(row[name], rel=1e-6, abs=1e-9) for name in found}
    assert {"map", "ap_a", "ap_b", "map_area", "coco_map", "loss"} <= found.keys()
    _, err = call("hbo.evaluate", run_folder, "--head", "full", expect=2)
    assert "head ('separable' saved, 'full' asked)" in err
    other = make_voc(tmp_path / "other", train=4, test=2)
    for path in (other / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<name>a<", "<name>c<"))
    _, err = call("hbo.evaluate", run_folder, "--data_dir", other, expect=2)
    assert "whose classes are ['a', 'b']" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_predict_on_one_image_gives_boxes_a_picture_and_a_latency(folder, unbroken, tmp_path):
    _, run_folder = only_row(unbroken[0])
    photograph, picture = folder / "JPEGImages" / "000016.jpg", tmp_path / "found.png"
    text, _ = call("hbo.evaluate", run_folder, "--image", photograph, "--out", picture, "--score", 0)
    *lines, last = text.strip().splitlines()
    assert 0 < len(lines) <= 200
    scores = [float(line.split()[1]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    boxes = np.array([[float(x) for x in line.split()[2:]] for line in lines])
    assert (
        (boxes >= 0) & (boxes <= [96, 80, 96, 80])
    ).all()  # in pixels of the photograph, not of the 64 x 64 input
    assert boxes[:, 2].max() > 64
    assert {line.split()[0] for line in lines} <= {"a", "b"}
    assert float(last.split("on cpu: ")[1].split(" ms")[0]) > 0
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    green = np.abs(pixels - [0x00, 0xA8, 0x46]).sum(2) < 30  # the boxes' colour; no photograph has it
    assert green.sum() > 500
    call("hbo.evaluate", run_folder, "--image", photograph, "--out", picture, "--score", 1)
    none = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert (np.abs(none - [0x00, 0xA8, 0x46]).sum(2) < 30).sum() < green.sum() / 10
    _, err = call("hbo.evaluate", run_folder, "--image", tmp_path / "none.jpg", "--out", picture, expect=2)
    assert err.strip().splitlines() == [f"error: image={tmp_path / 'none.jpg'}: no such file"]
    for given, words in (
        (["--image", photograph, "--json"], "json: not used with --image"),
        (
            ["--image", photograph, "--data_dir", folder, "--precision", "bf16-mixed"],
            "data_dir, precision: not used",
        ),
        (["--image", photograph, "--out", tmp_path / "found.gif"], "must end in .png, .pdf or .svg"),
        (["--score", 0.3], "score=0.3: needs --image"),
    ):
        _, err = call("hbo.evaluate", run_folder, *given, expect=2)
        assert words in err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_picture_of_a_run_marks_found_missed_and_false(folder, unbroken, tmp_path):
    _, run_folder = only_row(unbroken[0])
    picture = tmp_path / "grid.png"
    call("hbo.analysis.detections", run_folder, "--to", picture, "--score", 0)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert (
        np.abs(pixels - [0xFF, 0x8C, 0x00]).sum(2) < 30
    ).sum() > 500  # false detections, of which there are many at score 0
    _, err = call("hbo.analysis.detections", tmp_path, expect=2)
    assert "no finished run of a detector" in err
    other = make_voc(tmp_path / "other", train=16, test=5)  # the same photographs in another order
    listing = other / "ImageSets" / "Main" / "test.txt"
    listing.write_text("\n".join(reversed(listing.read_text().split())))
    _, err = call("hbo.analysis.detections", run_folder, "--data_dir", other, expect=2)
    assert "not the run's data set" in err


# ------------------------------------------------------------ resuming, several processes


@pytest.mark.slow
def test_killed_within_an_epoch_it_ends_as_an_uninterrupted_run(folder, unbroken, tmp_path):
    args = [*BRIEF, "--data_dir", folder, "--out", tmp_path, "--checkpoint_every", 0]
    kept = lambda: [
        int(torch.load(p, weights_only=True)["global_step"]) for p in tmp_path.glob("*/*/last.ckpt")
    ]
    process = start("hbo.fit", *args)
    wait_for(lambda: list(tmp_path.glob("*/*/last.ckpt")), process)
    process.kill()
    process.communicate()
    assert only_row(tmp_path)[0]["state"] == "unfinished"
    assert kept()[0] % 4, "killed at an epoch's end; the middle was not tested"
    call("hbo.fit", *args)
    row, _ = only_row(tmp_path)
    assert len(row["resumed_at"]) == 1
    assert row["resumed_at"][0] % 4
    same_run(unbroken[0], tmp_path)


@pytest.mark.slow
def test_two_processes_report_what_one_reports(folder, tmp_path):
    """Two processes count each photograph once; the metrics of their detector are those that one process
    finds.
    """
    two = ["--devices", 2, "--accelerator", "cpu"]
    call("hbo.fit", *BRIEF, "--data_dir", folder, *two, "--out", tmp_path)
    row, run_folder = only_row(tmp_path)
    assert row["val_images_seen"] == 5
    assert np.load(run_folder / "outcomes.npz")["index"].tolist() == list(range(5))
    alone = json.loads(call("hbo.evaluate", run_folder, "--json")[0])
    both = json.loads(call("hbo.evaluate", run_folder, *two, "--json")[0])
    assert alone["images"] == both["images"] == 5
    for name in ("map", "map_area", "coco_map", "ap_a", "ap_b", "loss"):
        assert both[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6)
        assert alone[name] == pytest.approx(row[name], rel=1e-4, abs=1e-6)


def test_the_loss_is_divided_by_matches_not_by_images(folder, monkeypatch):
    """On two devices the mean of the two losses is the loss of the whole batch, as both divide by the mean
    number of matches.
    """
    run = resolve(data="vocfolder", data_dir=str(folder), width=0.1, resolution=64, batch=4)
    data = open_data(run)
    torch.manual_seed(0)
    task = Detect(run, data.classes).eval()
    images, targets, index = data.train.__getitems__([(0, i) for i in range(4)])
    with torch.no_grad():
        whole, matched = task.detector.loss(*task(images), targets)
        halves = [(images[i : i + 2], targets[i : i + 2], index[i : i + 2]) for i in (0, 2)]
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.fill_(matched))
        task._trainer = type("Two", (), {"world_size": 2})()
        shares = [float(task.training_loss(half)[0]) for half in halves]
    assert sum(shares) / 2 == pytest.approx(float(whole), rel=1e-5)


def test_a_difficult_object_is_not_in_the_reported_loss(tmp_path):
    root = make_voc(tmp_path / "set", train=4, test=3)
    run, losses = resolve(data="vocfolder", data_dir=str(root), width=0.1, resolution=64, batch=4), []
    for hard in (False, True):
        data = open_data(run)
        torch.manual_seed(0)
        task = Detect(run, data.classes).eval()
        batch = data.val.__getitems__([(0, 0), (0, 1)])
        if hard:
            batch[1][1]["difficult"][:] = True
        with torch.no_grad():
            task.evaluate_batch(batch)
        found = task.outcomes.compute()
        losses.append((found["loss"].tolist(), found["matched"].tolist()))
        assert found["difficult"].any() == hard
    (plain, matches), (without, fewer) = losses
    assert plain[0] == without[0] > 0
    assert matches[1] > fewer[1] == 0


def test_without_objects_there_is_no_metric():
    """COCO's own code returns -1, which is not a score."""
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
    outcomes = Detections()
    truth = {"boxes": none["boxes"], "labels": none["labels"], "difficult": torch.zeros(0, dtype=torch.bool)}
    outcomes.update([none], [truth], torch.tensor([0]), [(torch.zeros(()), 0)])
    metrics = detection(outcomes.compute(), ["a", "b"])
    assert all(np.isnan(metrics[name]) for name in ("map", "map_area", "coco_map", "coco_map50"))


# ------------------------------------------------------------ from a classifier


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run of ours that classifies digits."""
    out = tmp_path_factory.mktemp("classifier")
    call(
        "hbo.fit",
        *flags(data="digits", epochs=1, limit_batches=4, width=0.1, threads=1, out=out),
    )
    return only_row(out)[1]


@pytest.mark.slow
def test_starting_from_our_classifier_with_frozen_batch_norm(folder, classifier, tmp_path):
    args = [*BRIEF, "--data_dir", folder, "--backbone_checkpoint", classifier, "--lr", 1e-5]
    for name, more in (("frozen", ["--freeze_bn"]), ("free", [])):
        call("hbo.fit", *args, *more, "--out", tmp_path / name)
    frozen, free = (only_row(tmp_path / name) for name in ("frozen", "free"))
    assert frozen[0]["key"] != free[0]["key"]
    assert frozen[0]["backbone_weights"].startswith("hbonet trained on digits, 1 epoch, seed 0 (")
    before = torch.load(classifier / "last.ckpt", weights_only=True)["state_dict"]
    (kept, moved), same, other = (weights(f) for _, f in (frozen, free)), 0, 0
    for name, value in before.items():
        inner = name.replace("net.", "net.backbone.net.", 1)
        if inner not in kept or not name.startswith("net."):
            assert "classifier" in name or not name.startswith("net.")
            continue
        norm = name.rsplit(".", 1)[0] + ".running_mean" in before
        if norm:  # weight, bias and statistics
            same += 1
            assert torch.equal(kept[inner], value), inner
            other += not torch.equal(moved[inner], value)
        elif "weight" in name:
            assert not torch.equal(kept[inner], value), f"{inner} was not trained"
            # It started from the classifier's weights.
            assert torch.cosine_similarity(kept[inner].flatten(), value.flatten(), dim=0) > 0.9
    assert same > 100
    assert other > same / 2  # without the flag they change


def backbone_of(run) -> tuple[dict, str]:
    task = Detect(run, ["a", "b"])
    said = task.begin()["backbone_weights"]
    return task.detector.net.state_dict(), said


def test_starting_from_a_released_classifier(tmp_path):
    path = tmp_path / "released.pth"
    state = released_state("width0.1_div4_k1")
    torch.save(state, path)
    run = resolve(data="voc", width=0.1, resolution=64, backbone_checkpoint=str(path))
    got, said = backbone_of(run)
    assert said.startswith("the authors' release, 1000 classes (")
    whole = load_released(build("hbonet", width=0.1, divisor=4), state)
    expected = {k: v for k, v in whole.state_dict().items() if not k.startswith("classifier")}
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[k], v) for k, v in expected.items())


def test_starting_from_torchvisions_state_dict(tmp_path):
    path, net = tmp_path / "shuffle.pth", "torchvision:shufflenet_v2_x0_5"
    torch.manual_seed(5)
    theirs = build(net)
    torch.save(theirs.state_dict(), path)
    got, said = backbone_of(resolve(data="voc", net=net, resolution=64, backbone_checkpoint=str(path)))
    assert said.startswith("a state dict (")
    expected = theirs.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in got.items())


@pytest.mark.parametrize(("given", "words"), [
    ({"width": 0.25}, "width"),
    ({"k": 2, "width": 0.1}, "k"),
    ({"net": "mobilenetv2", "width": 0.1}, "mobilenetv2"),
])  # fmt: skip
def test_a_checkpoint_of_another_network_is_an_error(tmp_path, given, words):
    path = tmp_path / "released.pth"
    torch.save(released_state("width0.1_div4_k1"), path)
    with pytest.raises(UserError) as refused:
        backbone_of(resolve(data="voc", resolution=64, backbone_checkpoint=str(path), **given))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_wrong_checkpoints_are_one_line_from_the_command_line(folder, classifier, unbroken, tmp_path):
    detector = only_row(unbroken[0])[1]
    for given, words in (
        (["--backbone_checkpoint", classifier, "--k", 2], "k (1 saved, 2 asked)"),
        (["--backbone_checkpoint", detector], "use a classifier"),
        (["--backbone_checkpoint", tmp_path / "none.pth"], "no such file"),
        (["--freeze_bn"], "needs --backbone_checkpoint"),
    ):
        _, err = call("hbo.fit", *BRIEF, "--data_dir", folder, *given, "--out", tmp_path / "runs", expect=2)
        assert words in err
        assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "runs").glob("*/*"))
