"""Flags, recipes, keys: a run is resolved as asked, and each error is one line."""

import dataclasses
import json
import re

import pytest
import yaml
from conftest import call, make_folder
from test_block import choices

from hbo import evaluate, export
from hbo.block import Block
from hbo.config import Run, resolve, to_yaml
from hbo.errors import UserError
from hbo.flags import parse
from hbo.runs import checkpoint
from hbo.tasks import SETS


def test_the_default_run_is_table_6_on_elpv():
    run = parse([])
    assert (run.net, run.k, run.width, run.divisor, run.data) == ("hbonet", 1, 0.25, 8, "elpv")


def test_an_explicit_width_drops_the_recipes_divisor():
    assert parse(["--width", "0.25"]).divisor == 2
    assert parse(["--width", "0.25", "--divisor", "8"]).divisor == 8
    assert parse(["--width", "0.1"]).divisor == 4
    assert parse(["--net", "mobilenetv2"]).divisor == 8
    assert parse(["--data", "imagenet", "--data_dir", "x"]).divisor == 2


def test_variant_is_split_into_its_fields():
    run = parse(["--variant", "net=mobilenetv2 width=0.5 resolution=64", "--seed", "1"])
    assert (run.net, run.width, run.divisor, run.seed) == ("mobilenetv2", 0.5, 8, 1)
    assert run.key() == resolve(net="mobilenetv2", width=0.5, resolution=64, seed=1).key()
    assert resolve(**dataclasses.asdict(run)) == run


def test_imagenets_recipe_is_the_papers():
    run = resolve(data="imagenet")
    assert (run.lr, run.momentum, run.weight_decay, run.batch, run.epochs, run.schedule) == (
        0.05,
        0.9,
        4e-5,
        256,
        150,
        "cosine",
    )
    assert (run.resolution, run.eval_resize, run.crop, run.flip) == (224, 256, "random", "horizontal")
    assert resolve(data="imagenet", resolution=192).eval_resize == 219  # resize by 1/0.875
    assert resolve(data="imagenet", resolution=192, eval_resize=256).eval_resize == 256  # table 5


@pytest.mark.parametrize("data", list(SETS))
def test_an_explicit_flag_beats_the_recipe(data):
    others = {"width": 0.5, "divisor": 2, "resolution": 48, "eval_resize": 500, "epochs": 30, "batch": 16, "lr": 0.3, "weight_decay": 0.3,
              "warmup": 0.5, "crop": "random", "crop_area": 0.9, "flip": "horizontal", "jitter": 0.7,
              "class_weights": "none",
              "schedule": "cosine", "milestones": "2,3", "warmup_from": 1e-5, "aspect": 1.5,
              "optimizer": "sgd", "label_smoothing": 0.3,
              "anchors": "torchvision", "matching": "argmax"}  # fmt: skip
    for field, value in SETS[data].recipe.items():
        if field == "task":
            continue  # no flag changes a set's task
        assert getattr(resolve(data=data), field) == value
        assert getattr(resolve(data=data, **{field: others[field]}), field) == others[field] != value


def test_every_field_is_a_flag_with_a_help_text(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(Run):
        assert f"--{field.name}" in text
        entry = text.split(f"--{field.name} ")[-1].split("(type")[0]
        assert len(entry.split()) > 2, f"{field.name} has no help"


@pytest.mark.parametrize("main", [evaluate.main, export.main])
def test_the_help_of_a_trained_network_lists_no_flag_that_it_refuses(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    listed = set(re.findall(r"\[--(\w+)", text))
    assert not listed & {*checkpoint.TRAINING, *Run.NETWORK}
    assert listed > {"data_dir", "resolution", "batch", "threads"}
    assert "its key" in text


def test_choices_that_contain_commas_can_be_read(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "--strides {16,32|8,16,32|4,8,16,32}" in capsys.readouterr().out


def test_yaml_and_json_round_trip(tmp_path):
    run = resolve(k=2, upsample="bilinear", seed=3, data="digits", study="s")
    for path, text in (
        (tmp_path / "c.yaml", to_yaml(run)),
        (tmp_path / "c.json", json.dumps(dataclasses.asdict(run))),
    ):
        path.write_text(text)
        assert parse(["--config", str(path)]) == run
        assert parse(["--config", str(path), "--seed", "4"]) == dataclasses.replace(run, seed=4)


def test_wandbs_own_arguments_are_ignored():
    run = parse(["--_wandb={}", "--config", '{"k": 2, "divisor": null, "_wandb": {}}', "--residual=False"])
    assert (run.k, run.residual) == (2, False)


def test_switches_need_no_value():
    assert parse(["--force", "--k", "2"]).force
    assert parse(["--k", "2", "--compile"]).compile
    assert not parse(["--residual", "false"]).residual


WRONG = [
    (["--kk", "2"], "did you mean --k"),
    (["--upsample", "cubic"], "nearest, bilinear, bicubic"),
    (["--k", "two"], "whole number"),
    (["--k", "-1"], "fewer than 0"),
    (["--k", "4"], "would be that of k=3"),
    (["--concat_ratio", "1"], "[0, 1)"),
    (["--net", "hbonett"], "did you mean hbonet"),
    (["--net", "mobilenetv2", "--k", "2"], "would change nothing"),
    (["--net", "torchvision:resnet18", "--width", "0.5"], "a fixed width"),
    (["--data", "elvp"], "did you mean elpv"),
    (["--lr", "0"], "positive"),
    (["--config", "none.yaml"], "none.yaml"),
    (["--config", '{"kx": 2}'], "did you mean k"),
    (["--seed"], "--seed"),
    (["--divisor", "0"], "at least 1"),
    (["--config", "/bin/true"], "not a text file"),
    (["stray"], "stray"),
    (["--cache", "tape"], "none, ram, disk"),
    (["--cache", "ram", "--cache_size", "300"], "--crop random and a folder"),
    (["--data", "imagenet", "--cache_size", "300"], "needs --cache ram, disk or jpeg"),
    (["--match_macs", "44.1", "--width", "0.3"], "gives 0.292"),
    (["--match_macs", "44.1", "--net", "mobilenetv2", "--divisor", "8"], "39.2 (width 0.277)"),
    (["--match_macs", "44.1", "--net", "timm:resnet18"], "a fixed width"),
    (["--match_macs", "0"], "positive"),
    (["--variant", "k=2 wdth=1"], "did you mean width"),
    (["--variant", "k=2", "--k", "3"], "give one of them"),
    (["--variant", "k=2 k=2"], "each field once"),
]


@pytest.mark.parametrize(("argv", "word"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_wrong_flag_is_one_clear_line_and_exit_2(argv, word, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(argv)
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(err.strip().splitlines()) == 1
    assert word in err


def test_the_command_line_reports_it_too():
    _, err = call("hbo.fit", "--kk", 2, expect=2)
    assert err == "error: --kk: no such flag; did you mean --k?\n"
    out, _ = call("hbo.fit", "--k", 2, "--print_config")
    assert yaml.safe_load(out)["k"] == 2


def test_the_key_covers_all_that_can_change_the_result():
    run = resolve(data="digits", eval_resize=64)
    same = {"threads": 7, "workers": 3, "out": "x", "study": "y", "wandb": "offline", "project": "p", "checkpoint_every": 1.0, "force": True,
            "data_dir": "z", "download": True, "accelerator": "cpu", "strategy": "ddp", "match_macs": 9.0,
            "variant": "k=2",
            "cache": "disk", "cache_dir": "c", "eval_every": 2, "recipe": "modern",
            "log_every": 9, "wandb_media": True}  # fmt: skip
    switches = {f.name: next(v for v in choices(f) if v != f.default) for f in dataclasses.fields(Block)}
    other = {**switches, "net": "hbonet_ir", "first_stage": "paper", "width": 0.5, "divisor": 4, "data": "fake", "holdout": 0.2, "backbone_lr_factor": 0.5, "skip_bad": 2, "per_class": 5, "resolution": 48,
             "eval_resize": 100, "crop": "pad", "crop_area": 0.5, "flip": "both", "jitter": 0.1,
             "augment": "device", "epochs": 7, "batch": 32, "lr": 0.1,
             "momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "schedule": "constant", "warmup": 1.0,
             "label_smoothing": 0.1,
             "class_weights": "balanced", "seed": 1, "limit_batches": 2, "precision": "bf16-mixed",
             "channels_last": False, "compile": True,
             "devices": 2, "num_nodes": 2, "no_decay_on_norm": True, "grad_clip": 1.0, "ema": 0.9,
             "auto_augment": "rand",
             "random_erasing": 0.1, "mixup": 0.2, "cutmix": 1.0, "dropout": 0.1, "drop_path": 0.1}  # fmt: skip
    detection = {
        "head": "full",
        "min_scale": 0.1,
        "anchors": "torchvision",
        "strides": "8,16,32",
        "matching": "argmax",
        "ssd_augment": False,
        "milestones": "1,2",
        "warmup_from": 1e-5,
    }
    reid = {
        "aspect": 1.0,
        "instances": 4,
        "bn_neck": True,
        "distance": "cosine",
        "rerank": True,
        "flip_features": True,
        "optimizer": "sgd",
    }
    elsewhere = {
        "triplet",
        "classifier_epochs",
        "cache_size",
        "decode",
        "task",
        "backbone_checkpoint",
        "freeze_bn",
        "weights",
        "val_split",
        "distill",
        "distill_temperature",
        "distill_weight",
    }  # tested below, in test_distill.py and test_draft.py
    assert same.keys() | other.keys() | detection.keys() | reid.keys() | elsewhere == {
        f.name for f in dataclasses.fields(Run)
    }
    assert {dataclasses.replace(run, **{f: v}).key() for f, v in same.items()} == {run.key()}
    keys = [
        dataclasses.replace(run, **{f: v}).key()
        for f, v in other.items()
        if f not in ("devices", "num_nodes")
    ]
    assert len({run.key(), *keys}) == len(keys) + 1
    two, nodes = (dataclasses.replace(run, **{f: 2}).key() for f in ("devices", "num_nodes"))
    assert two == nodes != run.key()  # in both cases batch norm sees batch / 2 images
    detector = resolve(data="voc")
    keys = [dataclasses.replace(detector, **{f: v}).key() for f, v in detection.items()]
    assert len({detector.key(), *keys}) == len(keys) + 1
    person = resolve(data="market1501")
    keys = [dataclasses.replace(person, **{f: v}).key() for f, v in reid.items()]
    keys.append(dataclasses.replace(person, instances=4, triplet=True).key())
    assert len({person.key(), *keys}) == len(keys) + 1


def test_a_cache_is_in_the_key_if_it_changes_pixels():
    """Random-resized crops of photographs are cut from smaller copies: the copies' size is in the key, their
    place is not.
    """
    key = lambda **given: resolve(data="imagenet", **given).key()
    assert key(cache="ram") == key(cache="disk", cache_dir="c") == key(cache="ram", cache_size=256) != key()
    assert key(cache="ram", cache_size=320) not in (key(), key(cache="ram"))
    assert key(cache="ram", crop="pad") == key(crop="pad")
    for data in ("elpv", "cifar10"):
        assert resolve(data=data, crop="random", cache="ram").key() == resolve(data=data, crop="random").key()
    assert resolve(data="elpv", cache="ram").key() == resolve(data="elpv").key()


def test_the_key_of_a_folder_depends_on_its_contents_not_its_path(tmp_path):
    here = make_folder(tmp_path / "a", {"x": 2, "y": 1}, {"x": 1})
    there = make_folder(tmp_path / "b", {"x": 2, "y": 1}, {"x": 1})
    other = make_folder(tmp_path / "c", {"x": 3, "y": 1}, {"x": 1})
    changed = make_folder(tmp_path / "d", {"x": 2, "y": 1}, {"x": 1})
    (changed / "val" / "x" / "0.png").write_bytes((here / "train" / "y" / "0.png").read_bytes() + b" ")
    keys = [resolve(data="imagefolder", data_dir=str(d)).key() for d in (here, there, other, changed)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_width_1_and_width_1_0_are_one_run():
    assert resolve(width=1, lr=1).key() == resolve(width=1.0, lr=1.0).key()


def test_unknown_fields_are_errors():
    with pytest.raises(UserError, match="did you mean residual"):
        resolve(residul=True)


def test_the_blocks_fields_are_fields_of_a_run():
    assert {f.name for f in dataclasses.fields(Block)} <= {f.name for f in dataclasses.fields(Run)}


# ------------------------------------------------------------ detection


def test_voc_s_recipe_is_the_papers():
    run = resolve(data="voc", net="mobilenetv2", width=1.0)
    assert (run.task, run.resolution, run.batch, run.epochs) == ("detect", 320, 32, 560)
    assert (run.lr, run.momentum, run.weight_decay) == (1e-3, 0.9, 5e-4)
    assert (run.schedule, run.drops, run.warmup, run.warmup_from) == ("step", [360, 480], 5, 1e-6)
    assert (run.head, run.ssd_augment, run.flip) == ("separable", True, "horizontal")


def test_the_task_follows_from_the_data_and_back():
    assert resolve(task="detect").data == "voc"
    assert resolve(data="vocfolder").task == "detect"
    assert resolve(task="classify").data == "elpv"
    with pytest.raises(UserError, match="data=elpv is for task=classify; use --data voc, vocfolder"):
        resolve(task="detect", data="elpv")
    with pytest.raises(UserError, match="data=voc is for task=detect"):
        resolve(task="classify", data="voc")


def test_a_recipes_milestones_scale_with_the_epochs():
    assert resolve(data="voc", epochs=56).drops == [36, 48]
    assert resolve(data="voc", epochs=7).drops == [4.5, 6]
    assert resolve(data="voc", epochs=56, milestones="10").drops == [10]
    assert resolve(data="voc", milestones=60).milestones == "60"  # as YAML reads it
    assert resolve(data="voc", schedule="cosine").milestones is None


def test_a_backbone_is_in_the_key_by_the_contents_of_its_file(tmp_path):
    one, copy, other = (tmp_path / f"{name}.pth" for name in "abc")
    one.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"others")
    keys = [resolve(data="voc", backbone_checkpoint=str(path)).key() for path in (one, copy, other)]
    assert keys[0] == keys[1]
    assert (
        len(
            {
                *keys,
                resolve(data="voc").key(),
                resolve(data="voc", backbone_checkpoint=str(one), freeze_bn=True).key(),
            }
        )
        == 4
    )
    alone = [
        resolve(data="market1501", backbone_checkpoint=str(one), classifier_epochs=n).key()
        for n in (None, 10, 3)
    ]
    assert alone[0] == alone[1] != alone[2]


def test_warmup_0_alone_removes_a_recipes_warm_up():
    """Without a warm-up the recipe's starting rate is dropped; one given by the user is an error."""
    assert resolve(data="voc", data_dir=".", warmup=0.0).warmup_from == 0
    assert resolve(data="voc", data_dir=".").warmup_from == 1e-6
    with pytest.raises(UserError, match="needs --warmup"):
        resolve(data="voc", data_dir=".", warmup=0.0, warmup_from=1e-6)
