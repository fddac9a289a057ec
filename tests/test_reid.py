"""Re-identification: recipe, features, losses, the classifier trained alone, runs in processes of their own."""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call, make_market, only_row, start
from test_fit import same_run, wait_for, weights
from torch import nn

from hbo import checkpoint, cost, nets, tasks
from hbo.block import Block
from hbo.config import build_net, resolve
from hbo.data import open_data
from hbo.embedding import Embedding
from hbo.errors import UserError
from hbo.tasks.base import Schedule
from hbo.tasks.reid import triplet


def reid(**given):
    return resolve(**{"data": "marketfolder", "resolution": 64, **given})


# ------------------------------------------------------------ recipe


def test_market_s_recipe_is_the_papers():
    run = resolve(data="market1501", width=0.5)
    assert (run.task, run.size, run.flip) == ("reid", (256, 128), "horizontal")
    assert (run.optimizer, run.lr, run.momentum, run.weight_decay, run.batch) == ("amsgrad", 1e-3, 0.9, 5e-4, 32)
    assert (run.epochs, run.schedule, run.drops, run.label_smoothing) == (90, "step", [60], 0.1)
    assert (run.classifier_epochs, run.instances, run.triplet, run.bn_neck) == (0, None, False, False)
    assert resolve(task="reid").data == "market1501"


def test_a_width_of_one_trains_for_30_epochs_more():
    for net in ("hbonet", "mobilenetv2"):
        run = resolve(data="market1501", net=net, width=1.0)
        assert (run.epochs, run.drops) == (120, [60])
        assert resolve(data="market1501", net=net, width=1.0, epochs=12).drops == [6]
    assert resolve(data="market1501", net="torchvision:resnet50").epochs == 90
    assert resolve(data="market1501", epochs=9).drops == [6]


def test_the_classifier_is_trained_alone_where_there_is_a_checkpoint():
    run = resolve(data="market1501", backbone_checkpoint="some.pth")
    assert (run.classifier_epochs, run.epochs, run.all_epochs) == (10, 90, 100)
    assert resolve(data="market1501", backbone_checkpoint="some.pth", classifier_epochs=0).all_epochs == 90
    schedule = Schedule(run, steps_per_epoch=4)
    assert [schedule(t) for t in (0, 39, 40, 4 * 70 - 1)] == [1.0] * 4
    assert schedule(4 * 70) == pytest.approx(0.1)
    assert Schedule(reid(epochs=3, warmup=1.0, milestones="2"), 4)(0) == 0.25


@pytest.mark.parametrize(("given", "word"), [
    ({"classifier_epochs": 5}, "needs a --backbone_checkpoint"),
    ({"triplet": True}, "needs --instances 2"),
    ({"instances": 1}, "at least 2"),
    ({"instances": 5}, "the 32 images of a batch"),
    ({"instances": 32}, "of 2 identities or more"),
    ({"instances": 16, "devices": 2}, "the 16 images"),
    ({"aspect": 8.0}, "the width, resolution=64 over it, must be at least 16"),
    ({"aspect": -1.0}, "aspect=-1.0"),
    ({"nesterov": True}, "is of SGD"),
    ({"eval_resize": 80}, "takes the whole image"),
    ({"crop": "pad"}, "crop=pad: task=reid has no use for it"),
    ({"limit_batches": 2}, "limit_batches=2: task=reid has no use for it"),
    ({"holdout": 0.2}, "holdout=0.2: task=reid"),
    ({"data": "digits", "bn_neck": True}, "bn_neck=True: task=classify has no use"),
    ({"data": "voc", "aspect": 2.0}, "aspect=2.0: task=detect has no use"),
    ({"data": "digits", "task": "reid"}, "data=digits is for classify; take --data market1501, marketfolder"),
])  # fmt: skip
def test_what_re_identification_cannot_obey_is_refused(given, word):
    with pytest.raises(UserError, match=word):
        reid(**given)


# ------------------------------------------------------------ features


def test_the_feature_is_what_the_networks_own_classifier_is_given():
    """For each kind of network: its last layer's input, seen in a pass of the whole network."""
    images = torch.randn(2, 3, 64, 64)
    for name, last, channels in (
        ("hbonet", "classifier", 1600), ("mobilenetv2", "classifier.1", 1280), ("torchvision:resnet50", "net.fc", 2048),
        ("timm:convnext_atto", "net.head.fc", 320), ("pytorchcv:mobilenet_w1", "net.output", 1024),
    ):  # fmt: skip
        whole = nets.build(name, num_classes=7).eval()
        given = []
        whole.get_submodule(last).register_forward_pre_hook(lambda _m, args, given=given: given.append(args[0]))
        whole(images)
        parameters = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in whole.get_submodule(last).parameters())
        embedding = Embedding(whole).eval()
        assert embedding.channels == channels
        assert torch.equal(embedding(images), given[0])
        assert cost.parameters(embedding) == parameters


def test_a_network_without_a_linear_end_is_refused():
    with pytest.raises(UserError, match="does not end with a linear classifier"):
        Embedding(nets.build("torchvision:squeezenet1_1", num_classes=7))


def test_costs_are_those_of_the_feature():
    run = resolve(data="market1501", width=0.5)
    whole = cost.count(nets.build("hbonet", Block(), 0.5), (256, 128))
    from hbo import size

    assert size.of_run(run, 751).macs == whole["total"].macs - whole["classifier"].macs
    assert size.of_run(run, 751).params == whole["total"].params - whole["classifier"].params
    assert size.of_run(resolve(data="market1501", width=0.5, aspect=1.0), 751).macs > 1.9 * size.of_run(run, 751).macs
    assert "256 x 128, without its classifier" in call("hbo.cost", "--task", "reid", "--width", 0.5)[0]


# ------------------------------------------------------------ losses, optimizer


def batch_of(n: int = 12, classes: int = 4):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 64, 32), generator=draw, dtype=torch.uint8)
    return images, torch.arange(n) % classes, torch.arange(n)


class Data:
    """As much of a data set as `tasks.make` looks at."""

    classes = tuple("abcd")


def made(**given):
    torch.manual_seed(0)
    task = tasks.make(reid(width=0.1, batch=12, **given), Data())  # pyright: ignore
    with torch.no_grad():
        task.classifier.weight.mul_(100)  # so that the first logits differ
    return task.train()


def test_label_smoothing_is_the_formula():
    """0.9 of the right identity's negative log-probability and 0.1 of the mean over all."""
    task, batch = made(), batch_of()
    loss, n = task.training_loss(batch)
    feature = task(batch[0]).double()
    logits = feature @ task.classifier.weight.double().T + task.classifier.bias.double()
    logs = logits - logits.exp().sum(1, keepdim=True).log()
    right = logs[torch.arange(12), batch[1]]
    expected = -(0.9 * right + 0.1 * logs.mean(1)).mean()
    assert n == 12
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logs.min().item() < -2  # far from the even guess, where smoothing changes nothing


def test_triplets_against_loops():
    draw = torch.Generator().manual_seed(0)
    for seed in range(5):
        feature = (1 + seed) * 0.2 * torch.randn(12, 3, generator=draw)
        labels = torch.randint(0, 3, (12,), generator=draw)
        labels[:3] = torch.arange(3)
        losses = []
        for a in range(12):
            far = lambda b, a=a, f=feature: float(((f[a] - f[b]) ** 2).sum() ** 0.5)
            positives = [far(b) for b in range(12) if labels[b] == labels[a]]
            negatives = [far(b) for b in range(12) if labels[b] != labels[a]]
            losses.append(max(0.0, max(positives) - min(negatives) + 0.3))
        assert triplet(feature, labels).item() == pytest.approx(np.mean(losses), rel=1e-4)
        assert np.mean(losses) > 0
    twins = torch.zeros(4, 3, requires_grad=True)  # an image beside itself: a distance of 0 has a gradient all the same
    triplet(twins, torch.tensor([0, 0, 1, 1])).backward()
    assert twins.grad is not None
    assert twins.grad.isfinite().all()


def test_half_precision_leaves_triplets_alone():
    """Close features: as a difference of squares in bfloat16 their distances would be noise."""
    draw = torch.Generator().manual_seed(0)
    feature, labels = 1 + 0.02 * torch.randn(16, 256, generator=draw), torch.arange(16) // 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = triplet(feature, labels).item()
    assert half == pytest.approx(triplet(feature, labels).item(), rel=1e-6)


def test_the_triplet_loss_comes_on_top():
    plain, both = made(), made(triplet=True, instances=3)
    batch = batch_of()
    losses = [task.training_loss(batch)[0].item() for task in (plain, both)]
    assert losses[1] - losses[0] == pytest.approx(triplet(both(batch[0]), batch[1]).item(), rel=1e-4)


def test_the_neck_normalises_what_is_classified_and_retrieved():
    plain, neck = made(), made(bn_neck=True)
    assert isinstance(neck.embedding.neck, nn.BatchNorm1d)
    assert neck.classifier.bias is None
    assert not neck.embedding.neck.bias.requires_grad
    images, *_ = batch_of()
    for task in (plain, neck):
        task.eval()
    assert torch.equal(plain.retrieved_by(images), plain(images))
    neck.embedding.neck.running_mean += 1
    expected = (neck(images) - 1) / (1 + neck.embedding.neck.eps) ** 0.5
    torch.testing.assert_close(neck.retrieved_by(images), expected)


def test_amsgrad_is_the_formula():
    """Three updates of one weight in plain Python: Reddi et al. 2018 with Adam's bias corrections, weight decay in the gradient."""
    task = made()
    optimizer = task.configure_optimizers()["optimizer"]
    group = optimizer.param_groups[0]
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in task.parameters())
    weight = task.classifier.weight
    value, m, v, most = weight[0, 0].item(), 0.0, 0.0, 0.0
    for t, gradient in enumerate((0.5, -0.01, 0.002), start=1):
        optimizer.zero_grad()
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        g = gradient + 5e-4 * value
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        most = max(most, v)
        value -= 1e-3 * (m / (1 - 0.9**t)) / ((most / (1 - 0.999**t)) ** 0.5 + 1e-8)
        assert weight[0, 0].item() == pytest.approx(value, rel=1e-5)
    assert type(made(optimizer="sgd").configure_optimizers()["optimizer"]) is torch.optim.SGD


# ------------------------------------------------------------ backbones


def test_a_zoos_own_weights_are_taken(tmp_path):
    """As torchvision publishes ResNets: no adapter's prefix, in older files no count of batches."""
    torch.manual_seed(1)
    published = nets.build("torchvision:resnet18", width=None, num_classes=1000).net
    state = {k: v for k, v in published.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18.pth")
    run = reid(net="torchvision:resnet18", backbone_checkpoint=str(tmp_path / "resnet18.pth"))
    net = build_net(run, 4)
    assert "a state dict" in checkpoint.load_backbone(net.backbone, run)
    for key, value in net.backbone.net.state_dict().items():
        assert torch.equal(value, published.state_dict()[key]), key
    del state["layer4.1.conv2.weight"]
    torch.save(state, tmp_path / "broken.pth")
    run = reid(net="torchvision:resnet18", backbone_checkpoint=str(tmp_path / "broken.pth"))
    with pytest.raises(UserError, match=r"the first odd key is net.layer4.1.conv2.weight"):
        checkpoint.load_backbone(net.backbone, run)


# ------------------------------------------------------------ runs


SMALL = ["--data", "marketfolder", "--resolution", 64, "--width", 0.1, "--threads", 1, "--workers", 0, "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return make_market(tmp_path_factory.mktemp("set") / "market", train=6, test=5, views=8)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier's run: the backbone of others."""
    out = tmp_path_factory.mktemp("classifier")
    call("hbo.fit", "--data", "digits", "--epochs", 1, "--limit_batches", 6, "--width", 0.1, "--threads", 1, "--out", out)
    return only_row(out)[1]


@pytest.fixture(scope="module")
def unbroken(market, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 3, "--out", out]
    text, err = call("hbo.fit", *args)
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
    assert (outcomes["first"] <= 5).mean() == pytest.approx(row["rank5"])
    assert outcomes["top"].shape == (10, 10)
    assert outcomes["top"].min() >= 10  # of the gallery
    assert row["rank1"] <= row["rank5"] <= row["rank10"] <= row["rank20"]
    assert "rank-20" in text
    assert "Warning" not in err
    assert "map=" in err
    curve = (folder / "metrics.csv").read_text().splitlines()
    assert float(curve[3].split(",")[curve[0].split(",").index("val/map")]) == row["map"]


@pytest.mark.slow
def test_evaluate_repeats_the_row_and_takes_other_identities(unbroken, tmp_path):
    row, folder = only_row(unbroken[0])
    # Two processes have half of the images each: in other batches a feature's last digit may differ, and who of two near ones is first.
    for more, slack in (([], 1e-9), (["--devices", 2], 0.02)):
        found = json.loads(call("hbo.evaluate", folder, *more, "--json")[0])
        assert found["images"] == row["val_images"]
        for name in ("map", "rank1", "rank5", "rank10", "rank20"):
            assert found[name] == pytest.approx(row[name], abs=slack), (name, more)
    other = make_market(tmp_path / "other", train=3, test=3)
    text, _ = call("hbo.evaluate", folder, "--data_dir", other)
    assert "22 images" in text
    assert [line.split() for line in text.splitlines() if "queries" in line] == [["queries", "6"]]
    _, err = call("hbo.evaluate", folder, "--bn_neck", "true", expect=2)
    assert "bn_neck (False saved, True asked)" in err


def reached(out) -> int:
    """Updates that the last checkpoint has."""
    (path,) = [*out.glob("*/*/last.ckpt")] or [None]
    return torch.load(path, weights_only=True)["global_step"] if path else 0


@pytest.mark.slow
def test_killed_in_the_warm_up_and_at_its_border_it_ends_as_the_unbroken_run(market, classifier, tmp_path):
    """With everything that could lose its place: P x K batches, triplets, the neck, AMSGrad, a backbone that waits."""
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 1, "--classifier_epochs", 2]
    args += ["--backbone_checkpoint", classifier, "--instances", 4, "--triplet", "--bn_neck"]
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    cut, steps = tmp_path / "cut", 6
    inside = lambda: 0 < (n := reached(cut)) < 2 * steps and n % steps
    process = start("hbo.fit", *args, "--out", cut, "--checkpoint_every", 0)
    wait_for(inside, process)
    process.kill()
    process.communicate()
    process = start("hbo.fit", *args, "--out", cut)  # checkpoints at each epoch's end alone
    wait_for(lambda: reached(cut) == 2 * steps, process)
    process.kill()
    process.communicate()
    assert reached(cut) == 2 * steps, "killed too late for the border"
    state, before = weights(only_row(cut)[1]), weights(classifier)
    backbone = {key: value for key, value in state.items() if key.startswith("net.backbone.")}
    for key, value in backbone.items():  # statistics of batch norm included
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
    moved = [key for key, value in backbone.items() if value.is_floating_point() and not torch.equal(value, trained[key])]
    assert len(moved) > 0.95 * sum(value.is_floating_point() for value in backbone.values())
    assert (row["classifier_epochs"], row["steps_per_epoch"]) == (2, steps)
    assert "hbonet trained on digits" in row["backbone_weights"]


@pytest.mark.slow
def test_killed_at_random_it_ends_as_the_unbroken_run(unbroken, market, tmp_path):
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 3, "--out", tmp_path, "--checkpoint_every", 0.05]
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
    """ConvNeXt, whose norm sees one image at a time: the same weights within float error, the classifier's epoch included."""
    net = ["--net", "timm:convnext_atto"]
    call(
        "hbo.fit", "--data", "digits", "--epochs", 1, "--limit_batches", 2, *net, "--lr", 0.01, "--out", tmp_path / "classifier"
    )
    _, backbone = only_row(tmp_path / "classifier")
    args = [arg for arg in SMALL if arg not in ("--width", 0.1)] + ["--data_dir", market, *net]
    args += ["--optimizer", "sgd", "--lr", 0.01, "--weight_decay", 0.5]  # such a decay would show on a backbone that waits
    args += ["--batch", 16, "--epochs", 1, "--backbone_checkpoint", backbone, "--classifier_epochs", 1]
    for name, devices in (("one", 1), ("two", 2)):
        call("hbo.fit", *args, "--devices", devices, "--out", tmp_path / name)
    (one, folder_one), (two, folder_two) = (only_row(tmp_path / name) for name in ("one", "two"))
    theirs = weights(folder_two)
    for key, value in weights(folder_one).items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5, msg=key)
    before = weights(backbone)
    moved = max(float((v - before[k.replace("backbone.", "")]).abs().max()) for k, v in theirs.items() if "backbone" in k)
    assert moved > 1e-4
    assert one["map"] == pytest.approx(two["map"], abs=0.02)  # places of near-equal distances may change
    assert two["val_images_seen"] == one["val_images_seen"] == 84


@pytest.mark.slow
@pytest.mark.parametrize("switch", [
    ["--bn_neck"], ["--instances", 4], ["--instances", 4, "--triplet"], ["--distance", "cosine"], ["--optimizer", "sgd", "--lr", 0.01],
    ["--net", "mobilenetv2"], ["--aspect", 1], ["--label_smoothing", 0],
], ids=lambda switch: " ".join(map(str, switch)))  # fmt: skip
def test_every_switch_trains_and_changes_something(switch, unbroken, market, tmp_path):
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 3, "--out", tmp_path]
    call("hbo.fit", *args, *switch)
    (row, folder), (usual, before) = only_row(tmp_path), only_row(unbroken[0])
    assert row["state"] == "done"
    assert row["key"] != usual["key"]
    a, b = (np.load(where / "outcomes.npz") for where in (folder, before))
    assert not np.array_equal(a["top"], b["top"])
    if "cosine" not in switch:
        theirs = weights(before)
        assert any(
            k not in theirs or v.shape != theirs[k].shape or not torch.equal(v, theirs[k]) for k, v in weights(folder).items()
        )


@pytest.mark.slow
def test_a_lost_network_ends_the_run(market, tmp_path):
    args = [*SMALL, "--data_dir", market, "--batch", 16, "--epochs", 2, "--optimizer", "sgd", "--lr", 1e20, "--out", tmp_path]
    call("hbo.fit", *args, expect=1)
    row, _ = only_row(tmp_path)
    assert row["state"] == "failed"
    assert "take a smaller --lr" in row["error"]


def test_open_data_gives_what_the_task_takes(market):
    run = reid(data_dir=str(market), width=0.1)
    data = open_data(run)
    task = tasks.make(run, data).eval()
    for start_ in range(0, len(data.val), 42):
        task.evaluate_batch(data.val.__getitems__([(0, i) for i in range(start_, start_ + 42)]))
    task.last_outcomes = task.outcomes.compute()
    found = task.metrics()
    assert found["queries"] == 10
    assert 0 < found["map"] <= 1


# ------------------------------------------------------------ to look at


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
        assert [right for _, right in top].index(True) + 1 == first if first <= 10 else not any(right for _, right in top)
        assert all(Path(path).parent.name == "bounding_box_test" and who(path) != "-1" for path, _ in top)
    worst = rankings(folder, queries=3, worst=True)
    assert [ranking.average_precision for ranking in worst] == sorted(ranking.average_precision for ranking in lists)[:3]
    axes = picture(worst).axes
    assert len(axes) == 33
    colours = [to_hex(ax.spines["top"].get_edgecolor()) for ax in axes[1:11]]
    assert colours == [COLOURS["right" if right else "wrong"] for _, right in worst[0].top]
    with pytest.raises(UserError, match="--data_dir says where"):
        rankings(folder, data_dir=str(tmp_path))
    with pytest.raises(UserError, match="not the set that the run reports on"):
        rankings(folder, data_dir=str(make_market(tmp_path / "other", views=4)))
    with pytest.raises(UserError, match="no finished re-identifier"):
        rankings(tmp_path)


def test_colour_histograms_are_numpys():
    from hbo.analysis.floors import channel_histograms, joint_histogram

    images, *_ = batch_of(3)
    for image, joint, each in zip(images, joint_histogram(images), channel_histograms(images), strict=True):
        pixels = image.reshape(3, -1).T.numpy()
        counts = np.histogramdd(pixels, bins=[np.arange(0, 257, 32)] * 3)[0] / len(pixels)
        np.testing.assert_allclose(joint, counts.ravel())
        levels = [np.histogram(pixels[:, c], bins=np.arange(0, 257, 4))[0] / len(pixels) for c in range(3)]
        np.testing.assert_allclose(each, np.concatenate(levels))


def test_floors_are_of_the_first_weights_of_a_run(market):
    """Their features are those of a network of that seed, made as `hbo.fit` makes it."""
    import pytorch_lightning as pl

    from hbo.analysis.floors import floors, table
    from hbo.metrics import cmc_map

    run = reid(data_dir=str(market), batch=28)
    found = floors(run, ["hbonet:0.1"], [0, 1])
    assert [row["features"] for row in found] == ["joint histogram", "histogram a channel", *["hbonet:0.1, untrained"] * 2]
    pl.seed_everything(1, verbose=False)
    data = open_data(run)
    task = tasks.make(reid(data_dir=str(market), width=0.1, seed=1), data).eval()
    images, shown, _ = data.val.__getitems__([(0, i) for i in range(len(data.val))])
    with torch.no_grad():
        feature = task(images)
    identity, camera, query = shown.unbind(1)
    sides = [part[which] for which in (query == 1, query == 0) for part in (feature, identity, camera)]
    expected = cmc_map(*sides)
    assert {name: found[3][name] for name in ("map", "rank1", "queries")} == pytest.approx(
        {name: expected[name] for name in ("map", "rank1", "queries")}, abs=1e-3
    )
    assert found[2]["map"] != found[3]["map"]
    frame = table(pd.DataFrame(found).assign(data="marketfolder", resolution=64, aspect=2)).frame
    assert list(frame["n"]) == [1, 1, 2]


@pytest.mark.parametrize("flag", [["--width", "0.5"], ["--seed", "3"], ["--backbone_checkpoint", "best.ckpt"]])
def test_floors_refuse_what_they_would_ignore(flag, capsys):
    from hbo.analysis.floors import main

    with pytest.raises(SystemExit):
        main(flag)
    assert capsys.readouterr().err.startswith(f"error: {flag[0][2:]}={flag[1]}: floors are untrained networks")
