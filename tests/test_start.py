"""Classifiers that start from weights: which weights, what is kept, what is trained when, and resuming."""

import hashlib
import os

import pytest
import torch
from conftest import call, make_folder, only_row, released_state, start
from flagged import flags
from resumed import same_run, wait_for, weights
from test_reid_runs import reached

from hbo import nets
from hbo.config import resolve
from hbo.errors import UserError
from hbo.nets import published
from hbo.runs import identity
from hbo.runs.weights import load_released
from hbo.tasks.classify import network
from hbo.tasks.classify.module import Classify

BRIEF = flags(threads=1, workers=0, accelerator="cpu")
RESNET = "torchvision:resnet18"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run of ours on ten digits."""
    out = tmp_path_factory.mktemp("classifier")
    call(
        "hbo.fit",
        *flags(data="digits", epochs=1, limit_batches=6, width=0.1),
        *BRIEF,
        "--out",
        out,
    )
    return only_row(out)[1]


def begun(classes, **given):
    """A classifier's task after loading its weights, what the row records, and the weights before."""
    torch.manual_seed(1)
    task = Classify(resolve(data="digits", **given), len(classes), classes=classes)
    before = {name: value.clone() for name, value in task.net.state_dict().items()}
    return task, task.begin(), before


def agree(one, two, names):
    return all(torch.equal(one[name], two[name]) for name in names)


def test_weights_of_an_unfinished_run_say_where_it_stopped(classifier, tmp_path):
    content = torch.load(classifier / "last.ckpt", weights_only=True)
    content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
    torch.save(content, tmp_path / "last.ckpt")
    _, said, _ = begun(list("0123456789"), width=0.1, backbone_checkpoint=str(tmp_path / "last.ckpt"))
    expected = "hbonet trained on digits, unfinished, stopped at update 6 in epoch 1 of 1, seed 0, "
    assert said["backbone_weights"].startswith(expected)


@pytest.mark.parametrize("classes", [list("0123456789"), list("abcdefghij"), ["ants", "bees"]])
def test_the_classifier_is_kept_if_the_classes_are_equal(classifier, classes):
    task, said, before = begun(classes, width=0.1, backbone_checkpoint=str(classifier))
    theirs = {k.removeprefix("net."): v for k, v in weights(classifier).items() if k.startswith("net.")}
    state, own = task.net.state_dict(), {"classifier.weight", "classifier.bias"}
    assert task.classifier == own
    assert agree(state, theirs, state.keys() - own)
    same = classes == list("0123456789")
    assert agree(state, theirs if same else before, own)
    kept = "kept" if same else "fresh"
    assert said["backbone_weights"].startswith(
        f"hbonet trained on digits, 1 epoch, seed 0, classifier {kept} ("
    )
    assert (
        identity.of_row({"backbone_weights": said["backbone_weights"]})["backbone"]
        == task.run.identity()["backbone"]
    )


@pytest.mark.parametrize(("net", "own"), [
    (RESNET, {"net.fc.weight", "net.fc.bias"}),
    # ends with a convolution
    ("torchvision:squeezenet1_1", {"net.classifier.1.weight", "net.classifier.1.bias"}),
    ("timm:mobilenetv3_small_050", {"net.classifier.weight", "net.classifier.bias"}),
    ("pytorchcv:mobilenet_wd4", {"net.output.weight", "net.output.bias"}),
    ("mobilenetv2", {"classifier.1.weight", "classifier.1.bias"}),
])  # fmt: skip
def test_a_zoos_own_file_fits_its_network(net, own, tmp_path):
    """Its file has no adapter around the network; its classifier of 1,000 classes is not used for 2."""
    torch.manual_seed(2)
    theirs = nets.build(net, width=None if ":" in net else 0.25).state_dict()
    torch.save({name.removeprefix("net."): value for name, value in theirs.items()}, tmp_path / "own.pth")
    task, said, before = begun(["ants", "bees"], net=net, backbone_checkpoint=str(tmp_path / "own.pth"))
    state = task.net.state_dict()
    assert task.classifier == own
    assert agree(state, theirs, state.keys() - own)
    assert agree(state, before, own)
    assert said["backbone_weights"].startswith("a state dict, classifier fresh (")


def test_the_authors_release_starts_a_classifier_of_other_classes(tmp_path):
    state = released_state("width0.1_div4_k1")
    torch.save(state, tmp_path / "released.pth")
    task, said, before = begun(
        ["ants", "bees"], width=0.1, backbone_checkpoint=str(tmp_path / "released.pth")
    )
    theirs = load_released(nets.build("hbonet", width=0.1, divisor=4), state).state_dict()
    now, own = task.net.state_dict(), {"classifier.weight", "classifier.bias"}
    assert agree(now, theirs, now.keys() - own)
    assert agree(now, before, own)
    assert said["backbone_weights"].startswith("the authors' release, 1000 classes, classifier fresh (")


def test_timms_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    theirs = nets.build("timm:mobilenetv3_small_050", width=None).net.state_dict()
    save_file(theirs, tmp_path / "model.safetensors")
    task, *_ = begun(
        ["a", "b"], net="timm:mobilenetv3_small_050", backbone_checkpoint=str(tmp_path / "model.safetensors")
    )
    assert torch.equal(task.net.net.conv_stem.weight, theirs["conv_stem.weight"])


def test_a_file_of_another_network_is_an_error(classifier, tmp_path):
    torch.save(nets.build(RESNET, width=None).net.state_dict(), tmp_path / "resnet18.pth")
    for given, words in (
        ({"width": 0.25, "backbone_checkpoint": str(classifier)}, "width (0.1 saved, 0.25 asked)"),
        (
            {"divisor": 8, "residual": False, "backbone_checkpoint": str(classifier)},
            "asked); add --residual true --width 0.1 --divisor 4",
        ),
        (
            {"net": "torchvision:resnet34", "backbone_checkpoint": str(tmp_path / "resnet18.pth")},
            "is net.layer1.2.bn1.bias (none saved, 64 asked); add the flags that it was trained with",
        ),
    ):
        with pytest.raises(UserError) as refused:
            begun(["a", "b"], **given)
        assert words in str(refused.value)


# ------------------------------------------------------------ a zoo's own weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Folders of a temporary home in which the zoos look for their files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_torchvisions_weights_are_found_in_torchs_cache(hub):
    given = {"data": "digits", "net": RESNET, "weights": "default"}
    where = hub / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    with pytest.raises(UserError) as refused:
        resolve(**given).key()
    assert str(where) in str(refused.value)
    assert "--download" in str(refused.value)
    theirs = nets.build(RESNET, width=None).net.state_dict()
    where.parent.mkdir(parents=True)
    torch.save(theirs, where)
    run = resolve(**given)
    assert run.identity()["backbone"] == hashlib.sha256(where.read_bytes()).hexdigest()[:10]
    by_hand = resolve(data="digits", net=RESNET, backbone_checkpoint=str(where))
    before = run.key()
    assert before == by_hand.key() != resolve(data="digits", net=RESNET).key()
    task, said, _ = begun(["a", "b"], net=RESNET, weights="default")
    assert torch.equal(task.net.net.conv1.weight, theirs["conv1.weight"])
    assert "classifier fresh" in said["backbone_weights"]
    torch.save({**theirs, "fc.bias": theirs["fc.bias"] + 1}, where)
    assert resolve(**given).key() != before


@pytest.mark.parametrize(("net", "file"), [
    ("timm:mobilenetv3_small_050", "torch/hub/checkpoints/mobilenetv3_small_050_lambc-4b7bbe87.pth"),
    ("pytorchcv:mobilenet_w1", ".torch/models/mobilenet_w1-0895-7e1d739f.pth"),
])  # fmt: skip
def test_weights_of_the_other_zoos_are_found(net, file, hub):
    (hub / file).parent.mkdir(parents=True)
    (hub / file).write_bytes(b"weights")
    assert published.file(net) == hub / file


@pytest.mark.parametrize(("given", "words"), [
    ({"weights": "default"}, "hbonet use --backbone_checkpoint"),
    ({"weights": "default", "net": RESNET, "backbone_checkpoint": "a.pth"}, "give one of them"),
    ({"weights": "default", "net": "pytorchcv:shufflenet_g3_w3d2"}, "pytorchcv publishes none"),
    ({"classifier_epochs": 2}, "classifier_epochs=2: needs --backbone_checkpoint or --weights default"),
    ({"freeze_bn": True}, "freeze_bn=True: needs --backbone_checkpoint or --weights default"),
    ({"backbone_lr_factor": 0.0}, "backbone_lr_factor=0.0: must be in"),
    ({"backbone_lr_factor": 2.0}, "backbone_lr_factor=2.0: must be in"),
    ({"data": "voc", "weights": "default"}, "is not used by task=detect"),
    ({"data": "voc", "classifier_epochs": 2}, "is not used by task=detect"),
    ({"data": "market1501", "freeze_bn": True}, "is not used by task=reid"),
])  # fmt: skip
def test_impossible_settings_are_errors(given, words):
    with pytest.raises(UserError) as refused:
        resolve(**{"data": "digits"} | given).key()
    assert words in str(refused.value)


def test_neutral_values_do_not_change_the_key():
    plain = resolve(data="digits").key()
    neutral = {
        "classifier_epochs": 0,
        "freeze_bn": False,
        "backbone_lr_factor": 1.0,
        "weights": "random",
        "val_split": 0.0,
    }
    assert resolve(data="digits", **neutral).key() == plain


# ------------------------------------------------------------ what is trained, and when


def test_the_factor_applies_to_all_but_the_classifier():
    task = Classify(resolve(data="digits", width=0.1, backbone_lr_factor=0.1, lr=0.5), 2)
    own, rest = task.configure_optimizers()["optimizer"].param_groups
    assert (own["initial_lr"], rest["initial_lr"]) == pytest.approx((0.5, 0.05))
    assert {id(p) for p in own["params"]} == {id(task.net.classifier.weight), id(task.net.classifier.bias)}
    assert len(own["params"]) + len(rest["params"]) == len([*task.parameters()])


def test_finding_the_classifier_draws_no_random_number():
    net = nets.build("hbonet", width=0.1, num_classes=2)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network.classifier_of(net, resolve(data="digits", width=0.1), 2)
    assert torch.equal(torch.rand(2), expected)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_folder(
        tmp_path_factory.mktemp("set") / "own", {"ants": 12, "bees": 12}, {"ants": 3, "bees": 3}, size=64
    )


@pytest.fixture(scope="module")
def args(photographs, classifier):
    own = flags(data="imagefolder", data_dir=photographs, resolution=64, width=0.1, batch=4, lr=0.01)
    own += flags(epochs=1, classifier_epochs=2, backbone_checkpoint=classifier, backbone_lr_factor=0.1)
    return [*own, *BRIEF]


@pytest.mark.slow
def test_killed_before_and_between_the_phases_it_ends_as_an_uninterrupted_run(args, classifier, tmp_path):
    """The backbone, with its batch norm, is unchanged until the second phase; a resumed run does not reset it."""
    call("hbo.fit", *args, "--out", tmp_path / "whole")
    cut, steps = tmp_path / "cut", 6
    process = start("hbo.fit", *args, "--out", cut, "--checkpoint_every", 0)
    wait_for(lambda: 0 < (n := reached(cut)) < 2 * steps and n % steps, process)
    process.kill()
    process.communicate()
    process = start("hbo.fit", *args, "--out", cut)  # checkpoints only at the end of each epoch
    wait_for(lambda: reached(cut) == 2 * steps, process)
    process.kill()
    process.communicate()
    assert reached(cut) == 2 * steps, "killed too late for the border"
    state, before = weights(only_row(cut)[1]), weights(classifier)
    backbone = [name for name in before if name.startswith("net.") and "classifier" not in name]
    assert agree(state, before, backbone)
    assert state["net.classifier.weight"].shape[0] == 2
    call("hbo.fit", *args, "--out", cut)
    row, folder = only_row(cut)
    assert len(row["resumed_at"]) == 2
    same_run(tmp_path / "whole", cut)
    trained = weights(folder)
    moved = [
        name
        for name in backbone
        if before[name].is_floating_point() and not torch.equal(trained[name], before[name])
    ]
    assert len(moved) > 0.95 * sum(before[name].is_floating_point() for name in backbone)
    assert "classifier fresh" in row["backbone_weights"]


@pytest.mark.slow
def test_freeze_bn_keeps_the_batch_norm(args, classifier, tmp_path):
    call("hbo.fit", *args, "--freeze_bn", "--out", tmp_path)
    row, folder = only_row(tmp_path)
    trained, before = weights(folder), weights(classifier)
    norms = [name.rpartition(".")[0] for name in before if name.endswith("running_mean")]
    assert agree(
        trained,
        before,
        [f"{n}.{part}" for n in norms for part in ("weight", "bias", "running_mean", "running_var")],
    )
    others = [
        n
        for n in before
        if n.endswith(".weight") and n.startswith("net.") and n.rpartition(".")[0] not in norms
    ]
    assert not any(torch.equal(trained[n], before[n]) for n in others if "classifier" not in n)
    assert row["state"] == "done"


@pytest.mark.slow
def test_a_run_from_published_weights_is_evaluated_without_them(photographs, tmp_path):
    """The checkpoint has all weights, so no file of a zoo is needed."""
    env: dict[str, str | None] = {"TORCH_HOME": str(tmp_path / "torch")}
    where = tmp_path / "torch" / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth"
    where.parent.mkdir(parents=True)
    torch.save(nets.build("torchvision:shufflenet_v2_x0_5", width=None).net.state_dict(), where)
    args = [
        *flags(data="imagefolder", data_dir=photographs, resolution=64, batch=4, epochs=1),
        *BRIEF,
    ]
    args += flags(net="torchvision:shufflenet_v2_x0_5", lr=0.01)
    call("hbo.fit", *args, "--weights", "default", "--out", tmp_path / "runs", env=env)
    row, folder = only_row(tmp_path / "runs")
    assert row["identity"]["backbone"] in row["backbone_weights"]
    os.remove(where)
    out, _ = call("hbo.evaluate", folder, env=env)
    assert "6 images" in out
    _, err = call("hbo.fit", *args, "--weights", "default", "--out", tmp_path / "runs", env=env, expect=2)
    assert err.startswith(f"error: weights=default: {where}: no such file")
