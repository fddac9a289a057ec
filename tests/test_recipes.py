"""The recipe for small folders: when it applies, its values, and that it consists only of field values."""

import dataclasses

import pytest
import yaml
from conftest import ROOT, call, make_folder, only_row
from flagged import flags

from hbo.config import content, resolve
from hbo.errors import UserError
from hbo.sweep import study
from hbo.tasks import TASKS
from hbo.tasks.classify import layout, recipes

CHOSEN = ("epochs", "batch", "lr", "warmup", "weight_decay")
PAPER = {name: getattr(resolve(data="imagenet"), name) for name in CHOSEN}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_folder(
        tmp_path_factory.mktemp("set") / "own", {"ants": 40, "bees": 40}, {"ants": 3, "bees": 3}
    )


def chosen(path, **given):
    run = resolve(data_dir=str(path), **given)
    return {name: getattr(run, name) for name in CHOSEN}


def test_a_folder_alone_is_enough(photographs):
    run = resolve(data_dir=str(photographs))
    assert run == resolve(data="imagefolder", data_dir=str(photographs))
    assert (run.data, run.batch, run.epochs, run.warmup) == ("imagefolder", 8, 100, 20)
    assert run.batch < 80  # fewer than the images, so an epoch has updates


@pytest.mark.parametrize(
    ("n", "batch", "epochs"), [(2, 2, 100), (40, 4, 100), (240, 16, 100), (1000, 32, 24), (5000, 32, 20)]
)
def test_the_recipe_depends_on_the_number_of_images(n, batch, epochs):
    found = recipes.small(n, {})
    assert (found["batch"], found["epochs"]) == (batch, epochs)
    assert n // batch >= 1
    assert found["lr"] == pytest.approx(recipes.LR * batch / 32)
    started = recipes.small(n, {"backbone_checkpoint": "a.pth"})
    assert started["lr"] < found["lr"]
    assert started["epochs"] < found["epochs"]
    assert started == recipes.small(n, {"weights": "default"})


def test_the_rate_scales_with_a_given_batch(photographs):
    assert chosen(photographs, batch=16)["lr"] == 2 * chosen(photographs)["lr"]
    assert chosen(photographs, batch=16, lr=0.3)["lr"] == 0.3
    assert chosen(photographs, epochs=10)["warmup"] == 2


def test_given_epochs_batch_and_rate_replace_the_recipe(photographs):
    """The flags give the run that they gave before the recipe existed: nothing is added to them."""
    given = {"epochs": 10, "batch": 8, "lr": 0.02}
    assert chosen(photographs, **given) == PAPER | given
    found = content(vars(resolve(data="imagefolder", data_dir=str(photographs), **given)))
    assert found == {"data": "imagefolder", "divisor": 2, "eval_resize": 256, "world": 1, **given}
    run = resolve(data_dir=str(photographs))
    assert dataclasses.replace(run).key() == resolve(**yaml.safe_load(yaml.safe_dump(vars(run)))).key()


def test_large_and_missing_folders_keep_the_papers_recipe(photographs, monkeypatch, tmp_path):
    assert chosen("/none", data="imagefolder") == PAPER
    monkeypatch.setattr(recipes, "SMALL", 80)
    assert chosen(photographs) == PAPER
    monkeypatch.setattr(recipes, "SMALL", 81)
    assert chosen(photographs) != PAPER


def test_no_more_file_names_are_read_than_needed(photographs):
    """ImageNet is also checked for being small."""
    assert layout.training_images(photographs, 81) == 80
    assert layout.training_images(photographs, 50) == 50
    assert layout.training_images(photographs / "none", 50) is None


def test_a_study_with_its_own_recipe_does_not_depend_on_the_folder(photographs):
    """Its keys are the same on small and large folders."""
    path = ROOT / "sweeps" / "contraction_cifar10.yaml"
    for row in study.read(path, {"data": "imagefolder", "data_dir": str(photographs)}).rows:
        assert set(recipes.SAYS) <= row.keys()
        assert content(vars(resolve(**row))) == content(vars(resolve(**row | {"data_dir": "/none"})))


@pytest.mark.slow
def test_a_run_prints_its_choice_and_the_row_has_it(photographs, tmp_path):
    args = flags(data_dir=photographs, resolution=32, width=0.1, limit_batches=1, threads=1, workers=0)
    _, err = call("hbo.fit", *args, "--epochs", 2, "--out", tmp_path)
    row, _ = only_row(tmp_path)
    (line,) = [line for line in err.splitlines() if "recipe" in line]
    assert line.startswith("recipe for a small folder, 80 training images: epochs=2, batch=8, lr=")
    assert (row["batch"], row["warmup"]) == (8, 0.4)
    _, err = call("hbo.fit", *args, "--epochs", 2, "--batch", 8, "--lr", 0.01, "--out", tmp_path)
    assert "recipe" not in err
    out, _ = call("hbo.cost", "--data_dir", photographs)
    assert "2 classes" in out


def test_a_detectors_warm_up_is_shorter_than_a_short_training():
    """The recipe's 5 epochs stay as they were where they fit; a given warm-up is never changed."""
    of = lambda **given: resolve(data="voc", **given)
    assert [of(epochs=n).warmup for n in (1, 2, 5, 6, 560)] == [0.2, 0.4, 1, 5, 5]
    assert TASKS["detect"].advice(of(epochs=1)).startswith("warmup=0.2: a fifth of --epochs 1")
    assert TASKS["detect"].advice(of(epochs=6)) == TASKS["detect"].advice(of(epochs=1, warmup=0.5)) == ""
    assert of(epochs=1, warmup=0).warmup_from == 0
    with pytest.raises(UserError, match=r"warmup=1\.0: must be shorter than the 1 epoch;"):
        of(epochs=1, warmup=1)
