"""Re-identification in separate processes: rows, resuming bit for bit, two processes, every switch, ranked
lists.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, make_market, only_row, start
from resumed import same_run, wait_for, weights
from test_reid import reid

from hbo import cost, evaluate, fit, nets
from hbo.errors import UserError
from hbo.tasks import build
from hbo.tasks.build import open_data
from hbo.tasks.reid.embedding import Embedding

SMALL = [
    "--data",
    "marketfolder",
    "--resolution",
    64,
    "--width",
    0.1,
    "--threads",
    1,
    "--workers",
    0,
    "--accelerator",
    "cpu",
]
BRIEF = [*SMALL, "--batch", 16, "--epochs", 3]
QUERIES = ["queries", "6,", "0", "without", "a", "match"]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return make_market(tmp_path_factory.mktemp("set") / "market", train=6, test=5, views=8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier's run, used as a backbone."""
    out = tmp_path_factory.mktemp("classifier")
    call(
        "hbo.fit",
        "--data",
        "digits",
        "--epochs",
        1,
        "--limit_batches",
        6,
        "--width",
        0.1,
        "--threads",
        1,
        "--out",
        out,
    )
    return only_row(out)[1]


@pytest.fixture(scope="module")
def unbroken(market, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    text, err = call("hbo.fit", *BRIEF, "--data_dir", market, "--out", out)
    return out, text, err


@pytest.mark.slow
def test_a_run_leaves_its_row_and_files(unbroken, market):
    out, text, err = unbroken
    row, folder = only_row(out)
    assert (row["state"], row["key"]) == ("done", folder.name)
    assert (row["num_classes"], row["train_images"], row["val_images_seen"]) == (6, 96, 5 * 16 + 4)
    assert (row["classifier_epochs"], row["backbone_weights"]) == (0, "random")
    assert row["macs"] == cost.count(Embedding(nets.build("hbonet", width=0.1)), (64, 32))["total"].macs
    outcomes = np.load(folder / "outcomes.npz")
    assert outcomes["index"].tolist() == list(range(84))
    assert outcomes["query"].tolist() == list(range(10))
    assert outcomes["identity"].tolist() == [who for who in range(7, 12) for _ in range(2)]
    assert outcomes["average_precision"].mean() == pytest.approx(row["map"])
    assert outcomes["inverse_negative_penalty"].mean() == pytest.approx(row["minp"])
    assert (outcomes["first"] <= 5).mean() == pytest.approx(row["rank5"])
    assert outcomes["top"].shape == (10, 10)
    assert outcomes["top"].min() >= 10  # indices of gallery images
    assert row["rank1"] <= row["rank5"] <= row["rank10"] <= row["rank20"]
    assert "rank-20" in text
    assert "Warning" not in err
    assert "map=" in err
    curve = (folder / "metrics.csv").read_text().splitlines()
    assert float(curve[3].split(",")[curve[0].split(",").index("val/map")]) == row["map"]


@pytest.mark.slow
def test_evaluate_repeats_the_row_and_takes_other_identities(unbroken, tmp_path):
    row, folder = only_row(unbroken[0])
    ask = lambda *more: json.loads(call("hbo.evaluate", folder, *more, "--json")[0])
    metrics = ("map", "minp", "rank1", "rank5", "rank10", "rank20")
    found = ask()
    assert found["images"] == row["val_images"] == 84
    assert {name: found[name] for name in metrics} == pytest.approx(
        {name: row[name] for name in metrics}, rel=1e-9
    )
    # Half of the images each, 14 at a time: other batch sizes may change a feature's last digit, and so which
    # of two images is nearer.
    assert ask("--devices", 2, "--batch", 28) == pytest.approx(ask("--batch", 14), rel=1e-9)
    other = make_market(tmp_path / "other", train=3, test=3)
    text, _ = call("hbo.evaluate", folder, "--data_dir", other)
    assert "22 images" in text
    assert [line.split() for line in text.splitlines() if "queries" in line] == [QUERIES]
    _, err = call("hbo.evaluate", folder, "--bn_neck", "true", expect=2)
    assert "bn_neck (False saved, True asked)" in err


@pytest.mark.slow
def test_switches_of_evaluation_give_the_row_of_a_run_with_them(unbroken, market, tmp_path, capsys):
    """On the weights of a run without them, and the other way round."""
    row, folder = only_row(unbroken[0])
    call("hbo.fit", *BRIEF, "--data_dir", market, "--rerank", "--flip_features", "--out", tmp_path)
    other, theirs = only_row(tmp_path)
    assert other["key"] != row["key"]
    switched = weights(theirs)
    for key, value in weights(folder).items():  # they do not affect training
        assert torch.equal(value, switched[key]), key
    names = ("map", "minp", "rank1", "rank5", "rank10", "rank20")
    metrics = lambda of: pytest.approx([of[name] for name in names], rel=1e-9)

    def found(folder: Path, *switches: str) -> list[float]:
        evaluate.main([str(folder), *switches, "--json"])
        answer = json.loads(capsys.readouterr().out)
        return [answer[name] for name in names]

    for switch in ("--rerank", "--flip_features"):
        assert found(folder, switch) != metrics(row), switch
    assert found(folder, "--rerank", "--flip_features") == found(theirs) == metrics(other)
    assert found(theirs, "--rerank", "false", "--flip_features=false") == metrics(row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", [("query", "bounding_box_test"), ("image_query", "image_test"), ("query", "gallery")]
)
def test_evaluate_takes_any_gallery_without_a_training_part(parts, unbroken, tmp_path, capsys):
    _, folder = only_row(unbroken[0])
    other = make_market(tmp_path / "other", train=1, test=3)
    for before, after in zip(("query", "bounding_box_test"), parts, strict=True):
        (tmp_path / "gallery" / after).mkdir(parents=True)
        for path in (other / before).iterdir():
            name = path.name if parts[0] != "image_query" else path.name.replace("s1_", "_")
            (tmp_path / "gallery" / after / name).write_bytes(path.read_bytes())
    flags = ["--data", "marketfolder", "--data_dir", str(tmp_path / "gallery")]
    evaluate.main([str(folder), *flags])
    text = capsys.readouterr().out
    assert "22 images" in text
    assert [line.split() for line in text.splitlines() if "queries" in line] == [QUERIES]
    with pytest.raises(SystemExit) as stop:
        fit.main([*map(str, SMALL), *flags, "--batch", "4", "--epochs", "1", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "no such folder" in err
    assert err.count("\n") == 1


def reached(out) -> int:
    """The number of updates in the last checkpoint."""
    (path,) = [*out.glob("*/*/last.ckpt")] or [None]
    return torch.load(path, weights_only=True)["global_step"] if path else 0


@pytest.mark.slow
def test_killed_in_the_warm_up_and_at_its_border_it_ends_as_the_unbroken_run(market, classifier, tmp_path):
    """With all state that could be lost: P x K batches, triplets, the neck, AMSGrad, a frozen backbone."""
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 1, "--classifier_epochs", 2]
    args += ["--backbone_checkpoint", classifier, "--instances", 4, "--triplet", "--bn_neck"]
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    cut, steps = tmp_path / "cut", 6
    inside = lambda: 0 < (n := reached(cut)) < 2 * steps and n % steps
    process = start("hbo.fit", *args, "--out", cut, "--checkpoint_every", 0)
    wait_for(inside, process)
    process.kill()
    process.communicate()
    process = start("hbo.fit", *args, "--out", cut)  # checkpoints only at the end of each epoch
    wait_for(lambda: reached(cut) == 2 * steps, process)
    process.kill()
    process.communicate()
    assert reached(cut) == 2 * steps, "killed too late for the border"
    state, before = weights(only_row(cut)[1]), weights(classifier)
    backbone = {key: value for key, value in state.items() if key.startswith("net.backbone.")}
    for key, value in backbone.items():  # including batch norm's statistics
        assert torch.equal(value, before[key.replace("backbone.", "")]), key
    assert state["net.neck.running_mean"].abs().max() > 0
    assert state["classifier.weight"].abs().max() > 0.01
    call("hbo.fit", *args, "--out", cut)
    row, folder = only_row(cut)
    first, second = row["resumed_at"]
    assert 0 < first < second == 2 * steps
    assert first % steps
    same_run(tmp_path / "whole", cut)
    trained = weights(folder)
    moved = [
        key
        for key, value in backbone.items()
        if value.is_floating_point() and not torch.equal(value, trained[key])
    ]
    assert len(moved) > 0.95 * sum(value.is_floating_point() for value in backbone.values())
    assert (row["classifier_epochs"], row["steps_per_epoch"]) == (2, steps)
    assert "hbonet trained on digits" in row["backbone_weights"]


@pytest.mark.slow
def test_killed_at_random_it_ends_as_the_unbroken_run(unbroken, market, tmp_path):
    args = [*BRIEF, "--data_dir", market, "--out", tmp_path, "--checkpoint_every", 0.05]
    for _ in range(2):
        before = reached(tmp_path)
        process = start("hbo.fit", *args)
        wait_for(lambda b=before: reached(tmp_path) > b, process)
        time.sleep(0.1)
        process.kill()
        process.communicate()
    call("hbo.fit", *args)
    assert len(only_row(tmp_path)[0]["resumed_at"]) == 2
    same_run(unbroken[0], tmp_path)


@pytest.mark.slow
def test_two_processes_see_what_one_sees(market, tmp_path):
    """ConvNeXt, whose norm sees one image at a time: the same weights within float error, after the
    classifier's epoch too.
    """
    net = ["--net", "timm:convnext_atto"]
    call(
        "hbo.fit",
        "--data",
        "digits",
        "--epochs",
        1,
        "--limit_batches",
        2,
        *net,
        "--lr",
        0.01,
        "--out",
        tmp_path / "classifier",
    )
    _, backbone = only_row(tmp_path / "classifier")
    args = [arg for arg in SMALL if arg not in ("--width", 0.1)] + ["--data_dir", market, *net]
    # This much weight decay would show on a frozen backbone.
    args += [
        "--optimizer",
        "sgd",
        "--lr",
        0.01,
        "--weight_decay",
        0.5,
    ]
    args += ["--batch", 16, "--epochs", 1, "--backbone_checkpoint", backbone, "--classifier_epochs", 1]
    for name, devices in (("one", 1), ("two", 2)):
        call("hbo.fit", *args, "--devices", devices, "--out", tmp_path / name)
    (one, folder_one), (two, folder_two) = (only_row(tmp_path / name) for name in ("one", "two"))
    theirs = weights(folder_two)
    for key, value in weights(folder_one).items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5, msg=key)
    before = weights(backbone)
    moved = max(
        float((v - before[k.replace("backbone.", "")]).abs().max())
        for k, v in theirs.items()
        if "backbone" in k
    )
    assert moved > 1e-4
    assert one["map"] == pytest.approx(two["map"], abs=0.02)  # near-equal distances may be ranked differently
    assert two["val_images_seen"] == one["val_images_seen"] == 84


@pytest.mark.slow
@pytest.mark.parametrize("switch", [
    ["--bn_neck"], ["--instances", 4], ["--instances", 4, "--triplet"], ["--distance", "cosine"],
    ["--optimizer", "sgd", "--lr", 0.01],
    ["--net", "mobilenetv2"], ["--aspect", 1], ["--label_smoothing", 0],
], ids=lambda switch: " ".join(map(str, switch)))  # fmt: skip
def test_every_switch_trains_and_changes_something(switch, unbroken, market, tmp_path):
    fit.main([*map(str, [*BRIEF, "--data_dir", market, "--out", tmp_path, *switch])])
    (row, folder), (usual, before) = only_row(tmp_path), only_row(unbroken[0])
    assert row["state"] == "done"
    assert row["key"] != usual["key"]
    a, b = (np.load(where / "outcomes.npz") for where in (folder, before))
    assert not np.array_equal(a["top"], b["top"])
    if "cosine" not in switch:
        theirs = weights(before)
        assert any(
            k not in theirs or v.shape != theirs[k].shape or not torch.equal(v, theirs[k])
            for k, v in weights(folder).items()
        )


@pytest.mark.slow
def test_a_lost_network_ends_the_run(market, tmp_path):
    args = [*BRIEF, "--data_dir", market, "--optimizer", "sgd", "--lr", 1e20, "--out", tmp_path]
    call("hbo.fit", *args, expect=1)
    row, _ = only_row(tmp_path)
    assert row["state"] == "failed"
    assert "use an --lr below" in row["error"]


def test_open_data_gives_what_the_task_takes(market):
    run = reid(data_dir=str(market), width=0.1)
    data = open_data(run)
    task = build.make(run, data).eval()
    for start_ in range(0, len(data.val), 42):
        task.evaluate_batch(data.val.__getitems__([(0, i) for i in range(start_, start_ + 42)]))
    task.last_outcomes = task.outcomes.compute()
    found = task.metrics()
    assert found["queries"] == 10
    assert 0 < found["map"] <= 1


# ------------------------------------------------------------ pictures


@pytest.mark.slow
def test_ranked_lists_are_the_runs(unbroken, market, tmp_path):
    from matplotlib.colors import to_hex

    from hbo.analysis.ranks import COLOURS, picture, rankings

    _, folder = only_row(unbroken[0])
    outcomes = np.load(folder / "outcomes.npz")
    lists = rankings(folder, queries=99)
    assert len(lists) == 10
    who = lambda path: Path(path).name.split("_")[0]
    for place, (query, average, top) in enumerate(lists):
        assert Path(query).parent.name == "query"
        assert average == outcomes["average_precision"][place]
        assert [who(path) == who(query) for path, _ in top] == [right for _, right in top]
        first = outcomes["first"][place]
        assert (
            [right for _, right in top].index(True) + 1 == first
            if first <= 10
            else not any(right for _, right in top)
        )
        assert all(Path(path).parent.name == "bounding_box_test" and who(path) != "-1" for path, _ in top)
    worst = rankings(folder, queries=3, worst=True)
    assert [ranking.average_precision for ranking in worst] == sorted(
        ranking.average_precision for ranking in lists
    )[:3]
    axes = picture(worst).axes
    assert len(axes) == 33
    colours = [to_hex(ax.spines["top"].get_edgecolor()) for ax in axes[1:11]]
    assert colours == [COLOURS["right" if right else "wrong"] for _, right in worst[0].top]
    with pytest.raises(UserError, match="if it has moved, give --data_dir"):
        rankings(folder, data_dir=str(tmp_path))
    with pytest.raises(UserError, match="not the run's data set"):
        rankings(folder, data_dir=str(make_market(tmp_path / "other", views=4)))
    with pytest.raises(UserError, match="no finished run of a re-identifier"):
        rankings(tmp_path)
